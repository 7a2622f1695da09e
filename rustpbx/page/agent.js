// The demo agent: what any program does that holds a call. It hears the events, and says the commands.

const GREETING = "Hello. I am the demo agent of this server. Say something, and I will repeat it.";

/** What the call is to do for it: hear words, tell speech from silence, speak, and say when an utterance is over. */
export const OPTION = { asr: {}, tts: {}, vad: { type: "webrtc" }, eou: {} };

export class DemoAgent {
  #send;
  #plays = 0;
  #speaking = false;

  constructor(send) {
    this.#send = send;
  }

  /** Take one event of the server's. */
  hear(event) {
    switch (event.event) {
      case "answer":
        this.#say(GREETING);
        break;
      case "speaking":
        if (this.#speaking) this.#send("interrupt"); // the caller has the floor
        break;
      case "asrFinal":
        if (event.text.trim()) this.#answer(event.text.trim());
        break;
      case "dtmf":
        this.#say(`You pressed ${event.digit}.`);
        break;
      case "trackStart":
        this.#speaking ||= Boolean(event.playId);
        break;
      case "trackEnd":
        if (event.playId) this.#speaking = false;
        break;
    }
  }

  #answer(words) {
    const said = words.toLowerCase();
    if (/\b(good ?bye|bye)\b/.test(said)) this.#say("Goodbye.", { autoHangup: true });
    else if (/\btime\b/.test(said)) this.#say(`It is ${new Date().toLocaleTimeString("en", { hour: "numeric", minute: "2-digit" })}.`);
    else this.#say(`You said: ${words}`);
  }

  #say(text, fields = {}) {
    this.#plays += 1;
    this.#send("tts", { text, playId: `demo-${this.#plays}`, endOfStream: true, ...fields });
  }
}
