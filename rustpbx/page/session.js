// One call: a WebSocket to the server for commands and events, and a WebRTC connection for the audio.

import { ask, socketUrl } from "./access.js";

const GATHERING = 2000; // ms that our ICE candidates may take; those found later are sent after the offer
const ANSWER_LATE = 5000; // ms that the answer may take

/**
 * Events: `said` (detail: a command of ours), `heard` (an event of the server), `sound` (its MediaStream), `end` (why).
 */
export class Session extends EventTarget {
  #socket;
  #over = false;
  #leaving = false;

  constructor(microphone) {
    super();
    this.microphone = microphone;
    this.peer = null;
  }

  /** Connect and offer our audio; `option` is the rest of the `invite`. Rejects with what went wrong. */
  async open(option) {
    this.peer = new RTCPeerConnection({ iceServers: await ask("/iceservers") });
    this.peer.addEventListener("track", ({ track }) => this.#tell("sound", new MediaStream([track])));
    this.peer.addEventListener("connectionstatechange", () => {
      if (this.peer.connectionState === "failed") this.end("no way was found for the audio (ICE or DTLS failed)");
    });
    for (const track of this.microphone.getAudioTracks()) this.peer.addTrack(track, this.microphone);
    await this.peer.setLocalDescription(await this.peer.createOffer());
    await Promise.all([this.#connect(), this.#gathered()]);
    if (this.#over) return;
    this.peer.addEventListener("icecandidate", ({ candidate }) => {
      if (candidate?.candidate) this.send("candidate", { candidates: [candidate.candidate] });
    });
    this.send("invite", { option: { ...option, offer: this.peer.localDescription.sdp } });
  }

  send(command, fields = {}) {
    if (this.#socket?.readyState !== WebSocket.OPEN) return;
    const message = { command, ...fields };
    this.#socket.send(JSON.stringify(message));
    this.#tell("said", message);
  }

  /** Press a key: RFC 4733 in our audio, as a phone does. */
  press(key) {
    const sender = this.peer?.getSenders().find(({ dtmf }) => dtmf?.canInsertDTMF);
    sender?.dtmf.insertDTMF(key, 160, 70);
    return Boolean(sender);
  }

  /** Say goodbye, and leave when the server has answered, or soon. */
  hangUp() {
    this.#leaving = true;
    this.send("hangup");
    setTimeout(() => this.end("ended"), 1500);
  }

  end(why) {
    if (this.#over) return;
    this.#over = true;
    this.#socket?.close(1000);
    this.peer?.close();
    for (const track of this.microphone.getTracks()) track.stop();
    this.#tell("end", why);
  }

  #connect() {
    return new Promise((resolve, reject) => {
      this.#socket = new WebSocket(socketUrl("/call/webrtc"));
      const late = setTimeout(() => reject(new Error("the server does not answer")), ANSWER_LATE);
      this.#socket.addEventListener("open", () => (clearTimeout(late), resolve()));
      this.#socket.addEventListener("error", () => reject(new Error("the server refused the call")));
      this.#socket.addEventListener("message", ({ data }) => this.#hear(data));
      this.#socket.addEventListener("close", ({ code }) => this.end(code === 1000 ? "ended" : "the server has gone"));
    });
  }

  #gathered() {
    return new Promise((resolve) => {
      const check = () => this.peer.iceGatheringState === "complete" && resolve();
      this.peer.addEventListener("icegatheringstatechange", check);
      setTimeout(resolve, GATHERING);
      check();
    });
  }

  #hear(data) {
    if (typeof data !== "string") return;
    const event = JSON.parse(data);
    if (event.event === "answer" && event.sdp && !event.refer) {
      this.peer
        .setRemoteDescription({ type: "answer", sdp: event.sdp })
        .catch((problem) => this.end(`the browser does not take the answer: ${problem.message}`));
    }
    this.#tell("heard", event);
    if (event.event === "hangup" && !event.refer) this.end(this.#leaving ? "ended" : (event.reason ?? "ended"));
  }

  #tell(kind, detail) {
    this.dispatchEvent(new CustomEvent(kind, { detail }));
  }
}
