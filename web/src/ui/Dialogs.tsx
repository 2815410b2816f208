/** Windows: export, names, settings, keys, token. */

import { useSignal } from "@preact/signals";
import type { ComponentChildren } from "preact";
import * as api from "../api";
import { parseLog } from "../core/log";
import * as app from "../state/app";
import * as engine from "../state/engine";
import { t, type Key } from "../state/i18n";
import * as settings from "../state/settings";
import { failed, toast } from "../state/toasts";
import * as tools from "../state/tools";
import { download, Modal, pickFiles } from "./common";
import { Reference } from "./Reference";

export function Dialogs() {
  switch (tools.dialog.value) {
    case "export":
      return <Export />;
    case "help":
      return <Help />;
    case "names":
      return <Names />;
    case "settings":
      return <Settings />;
    case "reference":
      return <Reference />;
    case "none":
      return api.tokenWanted.value ? <Token /> : null;
  }
}

// ---- export ----------------------------------------------------------------------------------------------------------

const FORMATS: { format: api.ExportFormat; name: Key; text: Key }[] = [
  { format: "coco", name: "cocoName", text: "cocoText" },
  { format: "yolo", name: "yoloName", text: "yoloText" },
  { format: "labelme", name: "labelmeName", text: "labelmeText" },
  { format: "masks", name: "masksName", text: "masksText" },
  { format: "cutout", name: "cutoutName", text: "cutoutText" },
  { format: "project", name: "projectName", text: "projectText" },
];
const VIDEO_FORMATS: { format: string; name: Key; text: Key }[] = [
  { format: "overlay", name: "videoOverlay", text: "videoOverlayText" },
  { format: "masks", name: "masksName", text: "masksText" },
  { format: "coco", name: "cocoName", text: "cocoText" },
];

function Export() {
  const video = app.activeVideo.value;
  const format = useSignal<string>(video ? "overlay" : "coco");
  const all = useSignal(app.images.value.length > 1);
  const busy = useSignal(false);
  const docs = all.value ? app.images.value : app.images.value.filter((d) => d === app.current.value);
  const empty = !video && docs.every((d) => d.objects.value.length === 0);
  const save = async (): Promise<void> => {
    busy.value = true;
    try {
      const file = await (video ? video.export(format.value) : app.exportDocs(format.value as api.ExportFormat, docs));
      download(file.blob, file.name);
    } catch (error) {
      failed(error);
    } finally {
      busy.value = false;
    }
  };
  return (
    <Modal title={t("exportTitle")} wide>
      <fieldset class="cards">
        <legend>{t("format")}</legend>
        {(video ? VIDEO_FORMATS : FORMATS).map((f) => (
          <label key={f.format} class="card">
            <input type="radio" name="format" checked={format.value === f.format} onChange={() => (format.value = f.format)} data-testid={`format-${f.format}`} />
            <strong>{t(f.name)}</strong>
            <span>{t(f.text)}</span>
          </label>
        ))}
      </fieldset>
      {!video && app.images.value.length > 1 && (
        <fieldset class="radios">
          <legend>{t("which")}</legend>
          <Radio name="which" checked={!all.value} choose={() => (all.value = false)}>{t("thisPhoto")}</Radio>
          <Radio name="which" checked={all.value} choose={() => (all.value = true)}>{t("allPhotos", { n: app.images.value.length })}</Radio>
        </fieldset>
      )}
      <div class="actions">
        {empty && <span class="hint">{t("nothingToExport")}</span>}
        <button type="button" class="primary" disabled={busy.value || empty} aria-busy={busy.value} onClick={() => void save()} data-testid="download">
          {t("download")}
        </button>
      </div>
      {!video && <Imports />}
    </Modal>
  );
}

function Radio({ name, checked, choose, children }: { name: string; checked: boolean; choose: () => void; children: ComponentChildren }) {
  return (
    <label>
      <input type="radio" name={name} checked={checked} onChange={choose} />
      {children}
    </label>
  );
}

function Imports() {
  const doc = app.current.value;
  const coco = async (): Promise<void> => {
    const [file] = await pickFiles(".json,application/json");
    if (!file) return;
    try {
      const { objects, missing } = await app.importCoco(await file.text());
      toast(t("importedN", { n: objects }));
      if (missing.length > 0) toast(t("importedMissing", { name: missing[0] ?? "", n: missing.length }), "error");
    } catch (error) {
      failed(error);
    }
  };
  const replay = async (): Promise<void> => {
    const [file] = await pickFiles(".json,application/json");
    if (!file || !doc) return;
    try {
      const log = parseLog(await file.text());
      await engine.ensureScene(doc);
      if (log.image !== doc.digest.value) throw new Error(t("logOther"));
      tools.dialog.value = "none";
      await app.replay(log.events);
      toast(t("logDone", { n: log.events.length }));
    } catch (error) {
      failed(error);
    }
  };
  const save = (): void => {
    if (!doc) return;
    const text = JSON.stringify(doc.log(), null, 1);
    download(new Blob([text], { type: "application/json" }), `${doc.name.replace(/\.[^.]+$/, "")}.log.json`);
  };
  return (
    <div class="more">
      <section>
        <h3>{t("log")}</h3>
        <p>{t("logText")}</p>
        <button type="button" onClick={save} disabled={!doc} data-testid="log-download">{t("logDownload")}</button>
        <button type="button" onClick={() => void replay()} disabled={!doc} data-testid="log-replay">{t("logReplay")}</button>
      </section>
      <section>
        <h3>COCO</h3>
        <p>{t("importText")}</p>
        <button type="button" onClick={() => void coco()} data-testid="import-coco">{t("importCoco")}</button>
      </section>
    </div>
  );
}

// ---- names, settings, token ------------------------------------------------------------------------------------------

function Names() {
  const text = useSignal(settings.ownNames.value.join("\n"));
  const save = (): void => {
    const lines = text.value.split("\n").map((line) => line.trim()).filter(Boolean);
    settings.ownNames.value = [...new Set(lines)];
    for (const doc of app.images.value) doc.regions.value = null; // they were named from the other list
    tools.dialog.value = "none";
  };
  return (
    <Modal title={t("namesTitle")}>
      <p id="names-text">{t("namesText", { n: engine.info.value?.vocabulary.length ?? 0 })}</p>
      <textarea
        rows={10}
        aria-label={t("names")}
        aria-describedby="names-text"
        value={text.value}
        onInput={(event) => (text.value = event.currentTarget.value)}
        data-testid="names-field"
      />
      <div class="actions">
        <button type="button" class="primary" onClick={save} data-testid="names-save">{t("save")}</button>
      </div>
    </Modal>
  );
}

const THEMES: { value: settings.Theme; name: Key }[] = [
  { value: "auto", name: "themeAuto" },
  { value: "light", name: "themeLight" },
  { value: "dark", name: "themeDark" },
];

function Settings() {
  const by = engine.backend.value;
  return (
    <Modal title={t("settings")}>
      <fieldset class="radios">
        <legend>{t("theme")}</legend>
        {THEMES.map(({ value, name }) => (
          <Radio key={value} name="theme" checked={settings.theme.value === value} choose={() => (settings.theme.value = value)}>
            {t(name)}
          </Radio>
        ))}
      </fieldset>
      <fieldset class="radios">
        <legend>{t("language")}</legend>
        <Radio name="language" checked={settings.language.value === "en"} choose={() => (settings.language.value = "en")}>
          <span lang="en">English</span>
        </Radio>
        <Radio name="language" checked={settings.language.value === "zh"} choose={() => (settings.language.value = "zh")}>
          <span lang="zh-CN">中文</span>
        </Radio>
      </fieldset>
      <label class="check">
        <input type="checkbox" checked={settings.preview.value} onChange={(event) => (settings.preview.value = event.currentTarget.checked)} data-testid="preview" />
        {t("preview")}
      </label>
      <label class="check">
        <input type="checkbox" checked={settings.zoom.value} onChange={(event) => (settings.zoom.value = event.currentTarget.checked)} data-testid="zoom-objects" />
        {t("zoomObjects")}
      </label>
      {by && (
        <p class="hint">
          {by.backend === "server"
            ? t("remoteLong", { why: engine.whyRemote.value })
            : t("localLong", { backend: by.backend, n: by.threads })}{" "}
          {engine.lastMs.value !== null && t("roundTook", { ms: Math.round(engine.lastMs.value) })}
        </p>
      )}
      {engine.info.value && (
        <p class="hint">
          seem {engine.info.value.version} · {engine.info.value.model}
        </p>
      )}
    </Modal>
  );
}

function Token() {
  const value = useSignal("");
  return (
    <Modal title={t("tokenTitle")}>
      <form
        class="text-tool"
        onSubmit={(event) => {
          event.preventDefault();
          api.useToken(value.value);
          location.reload();
        }}
      >
        <input type="password" autocomplete="off" aria-label={t("token")} placeholder={t("token")} value={value.value} onInput={(event) => (value.value = event.currentTarget.value)} data-testid="token" />
        <button type="submit" class="primary">{t("enter")}</button>
      </form>
    </Modal>
  );
}

// ---- keys ------------------------------------------------------------------------------------------------------------

const STAGE_KEYS: [string[], Key][] = [
  [["←", "↑", "→", "↓"], "helpArrows"],
  [["Enter"], "helpEnter"],
  [["Shift", "Enter"], "helpShiftEnter"],
  [["Esc"], "helpEscape"],
];
const KEYS: [string[], Key][] = [
  [["N"], "keyNew"],
  [["Ctrl", "Z"], "undo"],
  [["Ctrl", "Shift", "Z"], "redo"],
  [["I"], "keyInclude"],
  [["[", "]"], "keyWidth"],
  [["Del"], "keyDelete"],
  [["F2"], "keyRename"],
  [["H"], "keyHide"],
  [["L"], "keyLock"],
  [["K", "J"], "keyObjects"],
  [["PgUp", "PgDn"], "keyPhotos"],
  [[",", "."], "keyFrames"],
  [["+", "−", "0"], "keyZoom"],
  [["Ctrl", "E"], "keyExport"],
  [["?"], "keyHelp"],
];

function KeyList({ keys }: { keys: [string[], Key][] }) {
  return (
    <dl class="keys">
      {keys.map(([names, what]) => (
        <div key={what}>
          <dt>
            {names.map((name) => (
              <kbd key={name}>{name}</kbd>
            ))}
          </dt>
          <dd>{t(what)}</dd>
        </div>
      ))}
    </dl>
  );
}

function Help() {
  return (
    <Modal title={t("helpTitle")} wide>
      <div class="columns">
        <section>
          <h3>{t("tools")}</h3>
          <KeyList keys={tools.TOOLS.map(({ key, name }) => [[key.toUpperCase()], name])} />
        </section>
        <section>
          <h3>{t("helpEverywhere")}</h3>
          <KeyList keys={KEYS} />
        </section>
        <section>
          <h3>{t("helpMouse")}</h3>
          <ul>
            {(["helpLeft", "helpRight", "helpWheel", "helpSpace", "helpTouch"] as const).map((key) => (
              <li key={key}>{t(key)}</li>
            ))}
          </ul>
          <h3>{t("helpStage")}</h3>
          <KeyList keys={STAGE_KEYS} />
        </section>
      </div>
    </Modal>
  );
}
