"""Calls from Chromium by a bare page: a few lines of script, a microphone that plays a file, words both ways."""

from __future__ import annotations

import base64
import json
import wave
from pathlib import Path

import numpy as np
import pytest

from rustpbx.media.codec.resample import resample
from rustpbx.testing.voice import spoken
from tests.interop.calls import ANSWER, NOTHING, QUESTION, SPEECH, TAIL, alike, over, resembles
from tests.kit.browser import open_browser, until
from tests.kit.real import open_real_house

pytestmark = [pytest.mark.real_time, pytest.mark.interop("chromium")]

RATE = 48000

PAGE = """
(async () => {
  const call = window.call = {late: [], heard: [], connection: new RTCPeerConnection()};
  const plain = {echoCancellation: false, noiseSuppression: false, autoGainControl: false};
  const microphone = await navigator.mediaDevices.getUserMedia({audio: plain});
  const connection = call.connection;
  connection.onicecandidate = ({candidate}) => candidate?.candidate && call.late.push(candidate.toJSON());
  connection.ontrack = ({streams: [stream]}) => {
    const sound = new Audio();
    sound.srcObject = stream;  // without one, Chromium decodes nothing
    sound.play();
    const context = new AudioContext({sampleRate: 16000});
    const ear = context.createScriptProcessor(1024, 1, 1);
    ear.onaudioprocess = ({inputBuffer}) => call.heard.push(...inputBuffer.getChannelData(0));
    context.createMediaStreamSource(stream).connect(ear).connect(context.destination);
  };
  connection.addTrack(microphone.getAudioTracks()[0], microphone);
  if (EXTRAS) {
    connection.addTransceiver('video', {direction: 'recvonly'});
    connection.createDataChannel('unwanted');
  }
  const known = RTCRtpReceiver.getCapabilities('audio').codecs;
  const wanted = known.filter((codec) => [NAME, 'audio/telephone-event'].includes(codec.mimeType));
  connection.getTransceivers()[0].setCodecPreferences(wanted);
  await connection.setLocalDescription(await connection.createOffer());
  return connection.localDescription.sdp;
})()
"""

HEARD = """
(() => {
  const bytes = new Uint8Array(Int16Array.from(call.heard, (sample) => sample * 32767).buffer);
  let text = '';
  for (const byte of bytes) text += String.fromCharCode(byte);
  return btoa(text);
})()
"""


def microphone(path: Path) -> Path:
    """QUESTION, once the call can be up, and silence."""
    said = np.concatenate([np.zeros(3 * RATE, np.int16), spoken(QUESTION, rate=RATE), np.zeros(9 * RATE, np.int16)])
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(RATE)
        file.writeframes(said.astype("<i2").tobytes())
    return path


@pytest.mark.parametrize(("codec", "extras"), [("audio/opus", True), ("audio/PCMU", False), ("audio/G722", False)])
async def test_chromium_calls(tmp_path: Path, codec: str, *, extras: bool) -> None:
    """An offer without candidates, which come one by one; video and data beside the voice are refused; its close ends
    the call.
    """
    async with (
        open_real_house(tmp_path) as house,
        open_browser("chromium", tmp_path, microphone(tmp_path / "said.wav")) as browser,
        house.agent("/call/webrtc") as agent,
    ):
        host, port = house.server.http
        await browser.open(f"http://{host}:{port}/health")
        offer = await browser.evaluate(PAGE.replace("EXTRAS", str(extras).lower()).replace("NAME", f"'{codec}'"))
        assert "a=candidate" not in offer
        await agent.send("invite", option={"offer": offer, **SPEECH})
        answer = (await agent.until("answer"))["sdp"]
        assert answer.count(" 0 UDP/") == 2 * extras
        await browser.evaluate(
            f"call.connection.setRemoteDescription({{type: 'answer', sdp: {json.dumps(answer)}}}).then(() => 1)"
        )
        await agent.send("candidate", candidates=await until(browser, "call.late.length && call.late"))
        await until(browser, "call.connection.connectionState === 'connected'")
        assert alike((await agent.until("asrFinal"))["text"], QUESTION)
        await agent.says(ANSWER + TAIL)
        heard = np.frombuffer(base64.b64decode(await browser.evaluate(HEARD)), "<i2").astype(np.int16)
        await browser.evaluate("(call.connection.close(), 1)")
        await over(agent, "caller", "caller")
        assert "error" not in agent.names
        assert resembles(resample(heard, 16000, 8000), ANSWER + TAIL)
        assert await house.owned() == NOTHING


async def test_our_hangup_ends_chromium(tmp_path: Path) -> None:
    """The goodbye of DTLS: the page learns it at once, by its transport's state."""
    async with (
        open_real_house(tmp_path) as house,
        open_browser("chromium", tmp_path) as browser,
        house.agent("/call/webrtc") as agent,
    ):
        host, port = house.server.http
        await browser.open(f"http://{host}:{port}/health")
        offer = await browser.evaluate(PAGE.replace("EXTRAS", "false").replace("NAME", "'audio/opus'"))
        await agent.send("invite", option={"offer": offer})
        answer = json.dumps((await agent.until("answer"))["sdp"])
        await browser.evaluate(f"call.connection.setRemoteDescription({{type: 'answer', sdp: {answer}}}).then(() => 1)")
        await until(browser, "call.connection.connectionState === 'connected'")
        await agent.send("hangup")
        await over(agent, "system", "system")
        await until(browser, "call.connection.getSenders()[0].transport.state === 'closed'", 5)
        assert await house.owned() == NOTHING
