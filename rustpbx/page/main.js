// The page put together: what is pressed becomes a session, what the session tells becomes visible.

import { ask, ServerGone, setToken, takeTokenFromAddress, token, TokenNeeded } from "./access.js";
import { DemoAgent, OPTION } from "./agent.js";
import { Calls } from "./calls.js";
import { figures } from "./figures.js";
import { Meter } from "./meter.js";
import { Session } from "./session.js";
import { Transcript } from "./transcript.js";
import { Turns } from "./turns.js";

const MOST_EVENTS = 500;
const $ = (id) => document.getElementById(id);

const transcript = new Transcript($("transcript"));
const turns = new Turns($("turns").tBodies[0]);
const calls = new Calls($("calls-table").tBodies[0], $("calls-note"), $("calls-count"));
const meters = { you: new Meter($("you-meter"), $("you-level")), agent: new Meter($("agent-meter"), $("agent-level")) };

let session = null;
let context = null;
let answered = 0;

// -- what can go wrong before a call

function problemWith(error) {
  if (error instanceof TokenNeeded) return `${error.message}. Enter it above.`;
  if (error instanceof ServerGone) return "The server does not answer. Is it running?";
  if (error.name === "NotAllowedError") return "The microphone is not allowed. Allow it for this page in the browser's settings.";
  if (error.name === "NotFoundError" || error.name === "OverconstrainedError") return "No microphone was found. Connect one, or choose another.";
  if (error.name === "NotReadableError") return "The microphone is used by another program.";
  return error.message;
}

function notice(text) {
  $("notice").textContent = text;
  $("notice").hidden = !text;
}

async function microphone() {
  if (!navigator.mediaDevices) {
    throw new Error("The browser gives microphones to secure pages only: open this one by https, or as localhost.");
  }
  const wanted = $("microphone").value;
  return navigator.mediaDevices.getUserMedia({ audio: wanted ? { deviceId: { exact: wanted } } : true });
}

async function listMicrophones() {
  const found = (await navigator.mediaDevices?.enumerateDevices?.()) ?? [];
  const chosen = $("microphone").value;
  const named = found.filter(({ kind, deviceId, label }) => kind === "audioinput" && deviceId && deviceId !== "default" && label);
  $("microphone").replaceChildren(new Option("the system's", ""), ...named.map(({ deviceId, label }) => new Option(label, deviceId)));
  $("microphone").value = named.some(({ deviceId }) => deviceId === chosen) ? chosen : "";
}

// -- the call

function stand(state, lamp = "") {
  $("state").textContent = state;
  $("lamp").className = lamp;
  const up = session !== null;
  $("call").disabled = up;
  $("hangup").disabled = !up;
  $("interrupt").disabled = !answered;
  for (const key of $("keys").children) key.disabled = !answered;
  for (const field of $("whom").elements) field.disabled = up || (field.id === "number" && !wantsNumber());
  $("microphone").disabled = up;
}

const wantsNumber = () => document.querySelector("input[name=whom]:checked").value === "number";

async function call() {
  notice("");
  if (wantsNumber() && !$("number").value.trim()) {
    notice("Which number? Enter one, or a SIP address.");
    $("number").focus();
    return;
  }
  $("call").disabled = true;
  try {
    await ask("/iceservers"); // says why, where a WebSocket only fails
    const heard = await microphone();
    await listMicrophones();
    context ??= new AudioContext();
    context.resume(); // not waited for: without loudspeakers it never is
    begin(new Session(heard));
    await session.open(wantsNumber() ? {} : OPTION);
  } catch (error) {
    if (session) session.end(problemWith(error));
    else stand("ready");
    notice(problemWith(error));
  }
}

function begin(started) {
  session = started;
  transcript.clear();
  turns.clear();
  $("events").replaceChildren();
  meters.you.watch(context, session.microphone);
  const agent = wantsNumber() ? transferTo($("number").value.trim()) : new DemoAgent((...command) => started.send(...command));
  started.addEventListener("said", ({ detail }) => (log(detail), transcript.note(detail)));
  started.addEventListener("heard", ({ detail }) => {
    show(detail);
    agent.hear(detail);
  });
  started.addEventListener("sound", ({ detail }) => {
    $("heard").srcObject = detail;
    meters.agent.watch(context, detail);
  });
  started.addEventListener("end", ({ detail }) => finish(started, detail));
  stand("connecting", "busy");
  $("hangup").focus();
}

/** Once we are connected, the server calls the number and joins it with us. */
function transferTo(number) {
  const callee = /^sips?:|^tel:/.test(number) ? number : `tel:${number.replace(/[^+\d*#]/g, "")}`;
  return { hear: (event) => event.event === "answer" && !event.refer && session.send("refer", { caller: "sip:page@localhost", callee }) };
}

function show(event) {
  log(event);
  transcript.note(event);
  if (event.refer) showTransfer(event);
  else if (event.event === "answer") {
    answered = Date.now();
    stand(wantsNumber() ? "calling the number" : "in a call", wantsNumber() ? "busy" : "up");
  } else if (event.event === "metrics" && event.key === "turn") turns.add(event);
  else if (event.event === "error") notice(`${event.sender}: ${event.error}`);
  else if (event.event === "reject") notice(`Refused: ${event.reason ?? event.code}`);
}

/** What becomes of the call to a number. */
function showTransfer(event) {
  if (event.event === "ringing") stand("it rings", "busy");
  else if (event.event === "answer") stand("connected", "up");
  else if (event.event === "reject") {
    notice(`Not reached: ${event.reason || event.code}`);
    session.hangUp();
  }
}

const ENDS = { refer: "the other side hung up", caller: "hung up", callee: "hung up", system: "ended by the server" };

function finish(ended, why) {
  if (session !== ended) return;
  session = null;
  answered = 0;
  meters.you.watch(context, null);
  meters.agent.watch(context, null);
  stand(why === "ended" ? "ended" : `ended: ${ENDS[why] ?? why}`, /refused|gone|failed|no way/.test(why) ? "failed" : "");
  $("call").focus();
}

function log(message) {
  const { event, command, timestamp, ...rest } = message;
  if (event === "ping") return;
  const line = document.createElement("li");
  const [time, name, text] = ["time", "span", "span"].map((kind) => document.createElement(kind));
  time.textContent = new Date().toISOString().slice(11, 23);
  name.className = "name";
  name.textContent = event ?? command;
  text.className = "rest";
  text.textContent = JSON.stringify(rest, (key, value) => (key === "sdp" || key === "offer" ? "…" : value)).slice(1, -1);
  text.title = text.textContent;
  line.className = command ? "ours" : event === "error" ? "error" : "";
  line.append(time, name, text);
  const list = $("events");
  const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
  list.append(line);
  while (list.children.length > MOST_EVENTS) list.firstElementChild.remove();
  if (atEnd) list.scrollTop = list.scrollHeight;
}

// -- what moves by itself

function draw() {
  if (session) {
    meters.you.draw();
    meters.agent.draw();
    const seconds = answered ? Math.floor((Date.now() - answered) / 1000) : 0;
    $("clock").textContent = answered ? `${Math.floor(seconds / 60)}:${String(seconds % 60).padStart(2, "0")}` : "";
  }
  requestAnimationFrame(draw);
}

async function drawFigures() {
  const shown = await figures(session?.peer);
  $("figures").replaceChildren(
    ...[...shown].flatMap(([name, value]) => {
      const [term, text] = [document.createElement("dt"), document.createElement("dd")];
      term.textContent = name;
      text.textContent = value;
      return [term, text];
    }),
  );
}

// -- views and controls

function view() {
  const listed = location.hash === "#calls";
  $("talk").hidden = listed;
  $("calls").hidden = !listed;
  $("to-talk").toggleAttribute("aria-current", !listed);
  $("to-calls").toggleAttribute("aria-current", listed);
  for (const link of [$("to-talk"), $("to-calls")]) if (link.hasAttribute("aria-current")) link.setAttribute("aria-current", "page");
  if (listed) calls.show();
  else calls.hide();
}

for (const key of "123456789*0#") {
  const button = document.createElement("button");
  button.textContent = key;
  button.setAttribute("aria-label", { "*": "Key star", "#": "Key hash" }[key] ?? `Key ${key}`);
  button.addEventListener("click", () => session?.press(key) || notice("This call takes no keys: no telephone-event was agreed."));
  $("keys").append(button);
}
takeTokenFromAddress();
$("token").value = token();
$("token").addEventListener("change", ({ target }) => (setToken(target.value.trim()), notice(""), view()));
$("access").addEventListener("submit", (submitted) => submitted.preventDefault());
$("call").addEventListener("click", call);
$("hangup").addEventListener("click", () => session?.hangUp());
$("interrupt").addEventListener("click", () => session?.send("interrupt"));
$("whom").addEventListener("change", () => ($("number").disabled = !wantsNumber()) || $("number").focus());
navigator.mediaDevices?.addEventListener?.("devicechange", listMicrophones);
addEventListener("hashchange", view);
addEventListener("pagehide", () => session?.end("the page was left"));
listMicrophones();
stand("ready");
view();
drawFigures();
setInterval(drawFigures, 1000);
requestAnimationFrame(draw);
