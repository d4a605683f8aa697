import type { JSX } from 'preact';

/** Icons say nothing by themselves: whoever shows one puts words beside it, or a label on its button. */

function icon(...paths: readonly string[]): () => JSX.Element {
  return () => (
    <svg
      width="20"
      height="20"
      viewBox="0 0 24 24"
      fill="none"
      stroke="currentColor"
      stroke-width="1.75"
      stroke-linecap="round"
      stroke-linejoin="round"
      aria-hidden="true"
    >
      {paths.map((d) => (
        <path key={d} d={d} />
      ))}
    </svg>
  );
}

export const MessagesIcon = icon('M4 5h16v11H11l-5 4v-4H4z');
export const AssistantIcon = icon('M12 3v3', 'M6 8h12v10H6z', 'M3 12v3', 'M21 12v3', 'M10 12v1.5', 'M14 12v1.5');
export const DashboardIcon = icon('M4 20V10', 'M10 20V4', 'M16 20v-8', 'M22 20H2');
export const PersonIcon = icon('M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8z', 'M4 21c1-4 4-6 8-6s7 2 8 6');
export const LeaveIcon = icon('M10 4H5v16h5', 'M14 8l4 4-4 4', 'M18 12H9');
export const ColoursIcon = icon('M12 4a8 8 0 1 0 0 16z', 'M12 4a8 8 0 0 1 0 16');
export const AddIcon = icon('M12 5v14', 'M5 12h14');
export const BackIcon = icon('M14 6l-6 6 6 6');
export const CloseIcon = icon('M6 6l12 12', 'M18 6L6 18');
export const AttachIcon = icon(
  'M20 11l-8.5 8.5a5 5 0 0 1-7-7L13 4a3.4 3.4 0 0 1 4.8 4.8L9.5 17a1.7 1.7 0 0 1-2.4-2.4L15 6.8',
);
export const SendIcon = icon('M4 12l16-8-6 16-3-6z');
export const FileIcon = icon('M6 3h8l4 4v14H6z', 'M14 3v4h4');
export const DetailsIcon = icon('M12 11v6', 'M12 7.5v.01', 'M12 3a9 9 0 1 0 0 18 9 9 0 0 0 0-18');
export const DownIcon = icon('M12 5v14', 'M6 13l6 6 6-6');
export const TasksIcon = icon(
  'M4 6l1.5 1.5L8 5',
  'M4 13l1.5 1.5L8 12',
  'M11 6.5h9',
  'M11 13.5h9',
  'M11 20h9',
  'M5 20h1',
);
export const StopIcon = icon('M7 7h10v10H7z');
export const AgainIcon = icon('M20 12a8 8 0 1 1-2.3-5.7', 'M20 3v4h-4');
export const ToolIcon = icon('M14 6a4 4 0 0 1 5-1l-3 3 1 2 2 1 3-3a4 4 0 0 1-6 5l-8 8-3-3 8-8a4 4 0 0 1 1-4z');
export const EditIcon = icon('M4 20l1-4L16 5l3 3L8 19z');
export const DeleteIcon = icon('M5 7h14', 'M9 7V4h6v3', 'M7 7l1 13h8l1-13');
