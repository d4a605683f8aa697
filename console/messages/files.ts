import { client } from '../shell/session.ts';

/** Bytes from which on a download goes to a file as it comes, where the browser can do that. */
const streamedFrom = 64 * 2 ** 20;

interface SavePicker {
  showSaveFilePicker?(options: {
    suggestedName: string;
  }): Promise<{ createWritable(): Promise<WritableStream<Uint8Array>> }>;
}

/** Downloads a file. @throws what the client throws; an AbortError if nobody chooses where to put it */
export async function download(file_id: string, filename: string, size: number): Promise<void> {
  const { showSaveFilePicker } = window as SavePicker;
  if (size >= streamedFrom && showSaveFilePicker !== undefined) {
    const place = await showSaveFilePicker.call(window, { suggestedName: filename });
    const response = await client.downloadFile({ file_id });
    await response.body!.pipeTo(await place.createWritable());
    return;
  }
  const response = await client.downloadFile({ file_id });
  const url = URL.createObjectURL(await response.blob());
  const link = document.createElement('a');
  link.href = url;
  link.download = filename;
  link.click();
  // The browser has to have begun with it.
  setTimeout(() => URL.revokeObjectURL(url), 60_000);
}

const units = ['B', 'kB', 'MB', 'GB'];

/** A number of bytes as people read it. */
export function sizeOf(bytes: number): string {
  const power = Math.min(Math.floor(Math.log10(Math.max(bytes, 1)) / 3), units.length - 1);
  const value = bytes / 1000 ** power;
  return `${value < 10 && power > 0 ? value.toFixed(1) : Math.round(value)} ${units[power]}`;
}
