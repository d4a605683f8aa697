import { compactOf, longDayOf, numberOf, shortDayOf } from './formats.ts';
import { Table } from './fields.tsx';

/** Charts as SVG, whose numbers are also there as a table. */

/** What a chart has a bar for. */
export interface Day {
  /** Of UTC: `2026-11-29`. */
  date: string;
  value: number;
}

/** The end of a scale: the next round number, whose half is one, too. */
export function scaleEnd(most: number): number {
  if (most <= 2) return 2;
  const unit = 10 ** Math.floor(Math.log10(most));
  return [1, 2, 4, 6, 8].map((each) => each * unit).find((end) => end >= most) ?? 10 * unit;
}

/** The height of a chart, in its own units. Its width is a unit a day. */
const height = 100;

/** A bar for each day. */
export function DayChart({
  days,
  of,
}: {
  days: readonly Day[];
  /** What the values are: `tokens`. */
  of: string;
}) {
  const total = days.reduce((sum, { value }) => sum + value, 0);
  const greatest = days.reduce((before, day) => (day.value > before.value ? day : before), days[0]!);
  const end = scaleEnd(greatest.value);
  const [first, last] = [days[0]!.date, days.at(-1)!.date];
  const words = [
    `${numberOf(total)} ${of} from ${longDayOf(first)} to ${longDayOf(last)}`,
    ...(total > 0 ? [`most of them on ${longDayOf(greatest.date)}: ${numberOf(greatest.value)}`] : []),
  ].join('; ');
  const used = days.filter(({ value }) => value > 0);
  return (
    <figure class="chart">
      <div class="scale" aria-hidden="true">
        <span>{compactOf(end)}</span>
        <span>{compactOf(end / 2)}</span>
        <span>0</span>
      </div>
      <svg
        class="days"
        role="img"
        aria-label={words}
        viewBox={`0 0 ${days.length} ${height}`}
        preserveAspectRatio="none"
      >
        {[0, height / 2, height].map((y) => (
          <line key={y} class="grid" x1="0" x2={days.length} y1={y} y2={y} />
        ))}
        {days.map(({ date, value }, index) => (
          <g key={date} class="day" data-day={date} data-value={value}>
            <title>{`${longDayOf(date)}: ${numberOf(value)} ${of}`}</title>
            <rect class="ground" x={index} y="0" width="1" height={height} />
            {value > 0 && (
              <rect
                class="bar"
                x={index + 0.1}
                width="0.8"
                // A little can be seen of the smallest one, too.
                y={height - Math.max(1, (height * value) / end)}
                height={Math.max(1, (height * value) / end)}
              />
            )}
          </g>
        ))}
      </svg>
      <div class="ends quiet small" aria-hidden="true">
        <span>{shortDayOf(first)}</span>
        <span>{shortDayOf(last)}</span>
      </div>
      <details>
        <summary>As a table</summary>
        {used.length === 0 ? (
          <p class="quiet">Nothing on any of these days.</p>
        ) : (
          <Table label={`${of} by day`} heads={['Day', `#${of}`]}>
            {used.map(({ date, value }) => (
              <tr key={date}>
                <th scope="row">{longDayOf(date)}</th>
                <td class="number">{numberOf(value)}</td>
              </tr>
            ))}
          </Table>
        )}
      </details>
    </figure>
  );
}

/** A share of the greatest value, as a bar beside its number. */
export function ShareBar({ value, most }: { value: number; most: number }) {
  return (
    <svg class="share" viewBox="0 0 100 1" preserveAspectRatio="none" aria-hidden="true">
      <rect class="ground" width="100" height="1" />
      <rect class="bar" width={most === 0 ? 0 : Math.max(value > 0 ? 0.5 : 0, (100 * value) / most)} height="1" />
    </svg>
  );
}
