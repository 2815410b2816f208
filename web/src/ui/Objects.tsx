/** The objects of the photo: names, colours, what is shown and locked, and the knobs of the chosen one. */

import { useSignal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef } from "preact/hooks";
import { PALETTE } from "../core/palette";
import * as app from "../state/app";
import type { Doc } from "../state/doc";
import { names } from "../state/engine";
import { t } from "../state/i18n";
import { language } from "../state/settings";
import { finalOf, type Obj } from "../state/objects";
import * as tools from "../state/tools";
import { IconButton } from "./common";
import { Icon } from "./icons";

export function Objects() {
  const doc = app.current.value;
  return (
    <aside class={`panel ${tools.panelOpen.value ? "open" : ""}`} aria-label={t("objects")}>
      <header>
        <h2>{t("objects")}</h2>
        <IconButton icon="tag" label={t("names")} onClick={() => (tools.dialog.value = "names")} testid="names" />
        <IconButton icon="close" class="narrow-only" label={t("close")} onClick={() => (tools.panelOpen.value = false)} />
      </header>
      {doc && (
        <>
          <button type="button" class={`new ${doc.selected.value === null ? "chosen" : ""}`} aria-pressed={doc.selected.value === null} onClick={app.newOne} data-testid="new-object">
            <Icon name="plus" />
            {t("newObject")}
            <kbd>N</kbd>
          </button>
          {doc.objects.value.length === 0 && <p class="empty">{t("noObjects")}</p>}
          <ul class="objects" data-testid="objects">
            {doc.objects.value.map((o) => (
              <Row key={o.id} doc={doc} o={o} />
            ))}
          </ul>
          {doc.active.value && <Knobs doc={doc} o={doc.active.value} />}
        </>
      )}
    </aside>
  );
}

function Row({ doc, o }: { doc: Doc; o: Obj }) {
  const chosen = doc.selected.value === o.id;
  const name = app.nameOf(o);
  return (
    <li class={`${chosen ? "chosen" : ""} ${o.visible ? "" : "hidden"}`} data-testid="object" data-id={o.id} data-name={name} data-area={finalOf(o.shape).area}>
      <Swatch o={o} name={name} />
      {tools.renaming.value === o.id ? (
        <NameField doc={doc} o={o} />
      ) : (
        <button
          type="button"
          class="name"
          aria-pressed={chosen}
          onClick={() => (doc.selected.value = o.id)}
          onDblClick={() => (tools.renaming.value = o.id)}
        >
          <span class="text">{name}</span>
          <span class="meta">
            {describe(o)}
            {o.score !== null && <Score score={o.score} />}
          </span>
        </button>
      )}
      {tools.renaming.value !== o.id && <Actions o={o} name={name} />}
    </li>
  );
}

function Actions({ o, name }: { o: Obj; name: string }) {
  return (
    <>
      <IconButton icon={o.visible ? "eye" : "eyeOff"} label={t(o.visible ? "hide" : "show", { name })} shortcut="H" onClick={() => app.change(o.id, { visible: !o.visible })} />
      <IconButton icon={o.locked ? "lock" : "unlock"} label={t(o.locked ? "unlock" : "lock", { name })} shortcut="L" pressed={o.locked} onClick={() => app.change(o.id, { locked: !o.locked })} />
      <IconButton icon="trash" label={t("delete", { name })} shortcut="Delete" disabled={o.locked} onClick={() => app.remove(o.id)} />
    </>
  );
}

function Score({ score }: { score: number }) {
  return (
    <>
      {" · "}
      <span class="score" title={t("score")}>
        <span class="visually-hidden">{t("score")} </span>
        {Math.round(score * 100)}%
      </span>
    </>
  );
}

function describe(o: Obj): string {
  const n = o.prompts.length;
  const how = n === 0 ? "" : n === 1 ? t("onePrompt") : t("promptsN", { n });
  const area = finalOf(o.shape).area;
  const size = t("area", { n: area.toLocaleString(language.value, { notation: "compact", maximumSignificantDigits: 3 }) });
  return [how, size].filter(Boolean).join(" · ");
}

function Swatch({ o, name }: { o: Obj; name: string }) {
  const dot = useRef<HTMLInputElement>(null);
  return (
    <input
      ref={dot}
      class="swatch"
      type="color"
      list="palette"
      value={o.colour}
      aria-label={t("colourOf", { name })}
      title={t("colour")}
      onChange={(event) => app.change(o.id, { colour: event.currentTarget.value })}
    />
  );
}

export function Palette() {
  return (
    <datalist id="palette">
      {PALETTE.map((colour) => (
        <option key={colour} value={colour} />
      ))}
    </datalist>
  );
}

function NameField({ doc, o }: { doc: Doc; o: Obj }) {
  const field = useRef<HTMLInputElement>(null);
  const likely = useSignal<string[]>([]);
  useLayoutEffect(() => {
    // Not a property: what is typed would be overwritten when the suggestions come.
    if (field.current) field.current.value = app.nameOf(o);
    field.current?.select();
  }, []);
  useEffect(() => {
    void app.candidates(doc, o).then((found) => (likely.value = found));
  }, []);
  const save = (name: string): void => {
    if (tools.renaming.value !== o.id) return;
    tools.renaming.value = null;
    const said = name.trim();
    if (said !== app.nameOf(o)) app.change(o.id, { name: said });
  };
  return (
    <div class="name-field">
      <input
        ref={field}
        type="text"
        list="known-names"
        maxLength={100}
        aria-label={t("rename", { name: app.nameOf(o) })}
        onKeyDown={(event) => {
          if (event.key === "Enter") save(event.currentTarget.value);
          if (event.key === "Escape") tools.renaming.value = null;
        }}
        onBlur={(event) => save(event.currentTarget.value)}
        data-testid="name-field"
      />
      <datalist id="known-names">
        {names().map((name) => (
          <option key={name} value={name} />
        ))}
      </datalist>
      {likely.value.length > 0 && (
        <div class="chips" role="group" aria-label={t("suggested")}>
          {likely.value.map((name) => (
            <button
              key={name}
              type="button"
              onPointerDown={(event) => {
                event.preventDefault(); // before the field loses the focus, which would save what is in it
                save(name);
              }}
              onClick={() => save(name)}
            >
              {name}
            </button>
          ))}
        </div>
      )}
    </div>
  );
}

const KNOB = 100;

/** Holes and specks: the knob's square, so that small sizes can be told apart; at the end 2 % of the photo. */
function pixels(doc: Doc, knob: number): number {
  return Math.round((knob / KNOB) ** 2 * doc.width * doc.height * 0.02);
}

function position(doc: Doc, size: number): number {
  return Math.round(Math.sqrt(size / (doc.width * doc.height * 0.02)) * KNOB);
}

function Knobs({ doc, o }: { doc: Doc; o: Obj }) {
  const { holes, specks, tolerance } = o.shape;
  const corners = finalOf(o.shape).corners.reduce((n, loop) => n + loop.length, 0);
  const size = (n: number): string => (n === 0 ? t("off") : t("upTo", { n }));
  return (
    <section class="knobs" aria-label={app.nameOf(o)}>
      <Knob label={t("fillHoles")} shown={size(holes)} value={position(doc, holes)} max={KNOB} disabled={o.locked} onInput={(v) => app.setShape(o.id, { holes: pixels(doc, v) })} testid="holes" />
      <Knob label={t("dropSpecks")} shown={size(specks)} value={position(doc, specks)} max={KNOB} disabled={o.locked} onInput={(v) => app.setShape(o.id, { specks: pixels(doc, v) })} testid="specks" />
      <Knob
        label={t("simplify")}
        shown={tolerance === 0 ? t("off") : t("tolerance", { n: tolerance, c: corners })}
        value={tolerance * 2}
        max={40}
        disabled={o.locked}
        onInput={(v) => {
          app.setShape(o.id, { tolerance: v / 2 });
          if (v > 0) tools.tool.value = "corners";
        }}
        testid="simplify"
      />
    </section>
  );
}

interface KnobProps {
  label: string;
  shown: string;
  value: number;
  max: number;
  disabled: boolean;
  onInput: (value: number) => void;
  testid: string;
}

function Knob({ label, shown, value, max, disabled, onInput, testid }: KnobProps) {
  return (
    <label>
      <span>{label}</span>
      <output>{shown}</output>
      <input
        type="range"
        min={0}
        max={max}
        value={value}
        disabled={disabled}
        onInput={(event) => onInput(Number(event.currentTarget.value))}
        onChange={app.knobReleased}
        data-testid={testid}
      />
    </label>
  );
}
