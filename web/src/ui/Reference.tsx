/** Marks a region on another photo: a small stage of its own, with boxes and clicks only. */

import { useSignal } from "@preact/signals";
import { useEffect, useRef } from "preact/hooks";
import type { Point, VisualPrompt } from "../decoder/types";
import * as app from "../state/app";
import type { Doc } from "../state/doc";
import { t } from "../state/i18n";
import * as tools from "../state/tools";
import { Modal } from "./common";
import { Picture } from "./Bars";
import { POSITIVE } from "./stage/painter";

const SLACK = 5; // pixels that a click may move
const STEP = 10; // pixels that an arrow key moves the cursor

export function Reference() {
  const others = app.images.value.filter((d) => d !== app.current.value);
  const chosen = useSignal<Doc | null>(others.length === 1 ? (others[0] ?? null) : null);
  const marks = useSignal<VisualPrompt[]>([]);
  const choose = (doc: Doc): void => {
    chosen.value = doc;
    marks.value = [];
  };
  const use = (): void => {
    const doc = app.current.value;
    if (!doc || !chosen.value || marks.value.length === 0) return;
    tools.dialog.value = "none";
    void app.promptReference(doc, chosen.value, marks.value);
  };
  return (
    <Modal title={t("referenceTitle")} wide>
      {others.length === 0 ? (
        <p>{t("referenceNone")}</p>
      ) : (
        <>
          <p>{t("referenceText")}</p>
          <ul class="reference-photos">
            {others.map((doc) => (
              <li key={doc.key}>
                <button type="button" aria-pressed={chosen.value === doc} title={doc.name} onClick={() => choose(doc)} data-testid="reference-photo" data-name={doc.name}>
                  <Picture blob={doc.blob} name={doc.name} />
                </button>
              </li>
            ))}
          </ul>
          {chosen.value && <Marker doc={chosen.value} marks={marks.value} add={(mark) => (marks.value = [...marks.value, mark])} />}
          <div class="actions">
            <span class="hint" role="status">{marks.value.length > 0 ? t("marksN", { n: marks.value.length }) : ""}</span>
            <button type="button" disabled={marks.value.length === 0} onClick={() => (marks.value = [])}>{t("clearMarks")}</button>
            <button type="button" class="primary" disabled={marks.value.length === 0} onClick={use} data-testid="reference-use">
              {t("useReference")}
            </button>
          </div>
        </>
      )}
    </Modal>
  );
}

function Marker({ doc, marks, add }: { doc: Doc; marks: readonly VisualPrompt[]; add: (mark: VisualPrompt) => void }) {
  const canvas = useRef<HTMLCanvasElement>(null);
  const bitmap = useSignal<ImageBitmap | null>(null);
  const drag = useSignal<{ from: Point; to: Point } | null>(null);
  const cursor = useSignal<Point | null>(null);
  useEffect(() => {
    let gone = false;
    void createImageBitmap(doc.blob).then((made) => (gone ? made.close() : (bitmap.value = made)), () => undefined);
    return () => {
      gone = true;
      bitmap.peek()?.close();
      bitmap.value = null;
    };
  }, [doc]);
  useEffect(() => {
    const element = canvas.current;
    if (element && bitmap.value) paint(element, bitmap.value, marks, drag.value, cursor.value);
  }, [bitmap.value, marks, drag.value, cursor.value]);

  const at = (event: PointerEvent): Point => {
    const box = canvas.current?.getBoundingClientRect() ?? new DOMRect();
    const clamp = (v: number, top: number): number => Math.max(0, Math.min(top, v));
    return [
      clamp(((event.clientX - box.left) / box.width) * doc.width, doc.width - 0.01),
      clamp(((event.clientY - box.top) / box.height) * doc.height, doc.height - 0.01),
    ];
  };
  const click = ([x, y]: Point): void => add({ type: "click", x: Math.floor(x), y: Math.floor(y), positive: true });
  const up = (event: PointerEvent): void => {
    const from = drag.value?.from;
    drag.value = null;
    if (!from) return;
    const to = at(event);
    const width = canvas.current?.clientWidth ?? doc.width;
    if (Math.hypot(to[0] - from[0], to[1] - from[1]) * (width / doc.width) <= SLACK) return click(from);
    const [x0, x1] = from[0] < to[0] ? [from[0], to[0]] : [to[0], from[0]];
    const [y0, y1] = from[1] < to[1] ? [from[1], to[1]] : [to[1], from[1]];
    add({ type: "box", xyxy: [Math.floor(x0), Math.floor(y0), Math.ceil(x1), Math.ceil(y1)] });
  };
  const key = (event: KeyboardEvent): void => {
    const ways: Record<string, Point> = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    const way = ways[event.key];
    if (way) {
      const [x, y] = cursor.value ?? [doc.width / 2, doc.height / 2];
      const step = event.shiftKey ? 1 : STEP;
      cursor.value = [
        Math.max(0, Math.min(doc.width - 1, x + way[0] * step)),
        Math.max(0, Math.min(doc.height - 1, y + way[1] * step)),
      ];
    } else if (event.key === "Enter" && cursor.value) {
      click(cursor.value);
    } else {
      return;
    }
    event.preventDefault();
  };
  return (
    <canvas
      ref={canvas}
      class="marker"
      width={doc.width}
      height={doc.height}
      tabIndex={0}
      role="application"
      aria-label={t("stageLabel")}
      onPointerDown={(event) => {
        if (event.button !== 0) return;
        event.currentTarget.setPointerCapture(event.pointerId);
        drag.value = { from: at(event), to: at(event) };
      }}
      onPointerMove={(event) => drag.value && (drag.value = { from: drag.value.from, to: at(event) })}
      onPointerUp={up}
      onPointerCancel={() => (drag.value = null)}
      onKeyDown={key}
      onBlur={() => (cursor.value = null)}
      data-testid="marker"
    />
  );
}

function paint(
  canvas: HTMLCanvasElement,
  bitmap: ImageBitmap,
  marks: readonly VisualPrompt[],
  drag: { from: Point; to: Point } | null,
  cursor: Point | null,
): void {
  const c = canvas.getContext("2d");
  if (!c) return;
  const unit = canvas.width / Math.max(1, canvas.clientWidth); // a pixel of the screen
  c.drawImage(bitmap, 0, 0, canvas.width, canvas.height);
  const box = (x0: number, y0: number, x1: number, y1: number): void => {
    for (const [colour, width] of [["rgba(0,0,0,.5)", 4], [POSITIVE, 2]] as const) {
      c.strokeStyle = colour;
      c.lineWidth = width * unit;
      c.strokeRect(x0, y0, x1 - x0, y1 - y0);
    }
  };
  for (const mark of marks) {
    if (mark.type === "box") box(...mark.xyxy);
    if (mark.type === "click") {
      c.beginPath();
      c.arc(mark.x + 0.5, mark.y + 0.5, 7 * unit, 0, 2 * Math.PI);
      c.fillStyle = POSITIVE;
      c.fill();
      c.strokeStyle = "#fff";
      c.lineWidth = 2 * unit;
      c.stroke();
    }
  }
  if (drag) box(drag.from[0], drag.from[1], drag.to[0], drag.to[1]);
  if (cursor) {
    c.strokeStyle = "#fff";
    c.lineWidth = 2 * unit;
    c.beginPath();
    c.moveTo(cursor[0] - 12 * unit, cursor[1]);
    c.lineTo(cursor[0] + 12 * unit, cursor[1]);
    c.moveTo(cursor[0], cursor[1] - 12 * unit);
    c.lineTo(cursor[0], cursor[1] + 12 * unit);
    c.stroke();
  }
}
