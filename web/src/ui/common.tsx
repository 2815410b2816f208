/** Pieces that several parts of the page use. */

import type { ComponentChildren } from "preact";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { t } from "../state/i18n";
import { dialog } from "../state/tools";
import { Icon, type IconName } from "./icons";

interface IconButtonProps {
  icon: IconName;
  label: string;
  /** shown with the label, and announced */
  shortcut?: string;
  onClick: () => void;
  pressed?: boolean;
  disabled?: boolean;
  testid?: string;
  class?: string;
}

export function IconButton({ icon, label, shortcut, onClick, pressed, disabled, testid, class: extra }: IconButtonProps) {
  return (
    <button
      type="button"
      class={`icon-button ${extra ?? ""}`}
      aria-label={label}
      title={shortcut ? `${label} (${shortcut})` : label}
      aria-keyshortcuts={shortcut}
      aria-pressed={pressed}
      disabled={disabled}
      onClick={onClick}
      data-testid={testid}
    >
      <Icon name={icon} />
    </button>
  );
}

/** A modal window; the browser keeps the focus inside and Escape closes it. */
export function Modal({ title, wide, children }: { title: string; wide?: boolean; children: ComponentChildren }) {
  const element = useRef<HTMLDialogElement>(null);
  useLayoutEffect(() => {
    const shown = element.current;
    shown?.showModal();
    return () => shown?.close();
  }, []);
  const close = (): void => void (dialog.value = "none");
  return (
    <dialog
      ref={element}
      class={wide ? "wide" : ""}
      aria-labelledby="dialog-title"
      onCancel={(event) => {
        event.preventDefault();
        close();
      }}
      onPointerDown={(event) => event.target === element.current && close()}
    >
      <div class="dialog-body">
        <header>
          <h2 id="dialog-title">{title}</h2>
          <IconButton icon="close" label={t("close")} onClick={close} testid="dialog-close" />
        </header>
        {children}
      </div>
    </dialog>
  );
}

/** The system's file window. */
export function pickFiles(accept: string, options: { folder?: boolean; many?: boolean } = {}): Promise<File[]> {
  return new Promise((done) => {
    const input = document.createElement("input");
    input.type = "file";
    input.accept = accept;
    input.multiple = options.many ?? false;
    input.webkitdirectory = options.folder ?? false;
    input.onchange = () => done([...(input.files ?? [])]);
    input.oncancel = () => done([]);
    input.click();
  });
}

export function download(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** A blob's address for an <img>, released when it is not shown any more. */
export function useObjectUrl(blob: Blob): string {
  const held = useRef<{ blob: Blob; url: string } | null>(null);
  if (held.current?.blob !== blob) {
    if (held.current) URL.revokeObjectURL(held.current.url);
    held.current = { blob, url: URL.createObjectURL(blob) };
  }
  useEffect(() => () => {
    if (held.current) URL.revokeObjectURL(held.current.url);
    held.current = null;
  }, []);
  return held.current.url;
}
