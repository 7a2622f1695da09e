// What the browser knows of the connection: its states, its path, its codec, and what was lost on the way.

/** Names and values to show, of a peer connection; all of them a dash without one. */
export async function figures(peer) {
  const shown = new Map([
    ["ICE", "–"], ["DTLS", "–"], ["SRTP", "–"], ["Path", "–"], ["Round trip", "–"], ["Codec", "–"],
    ["Sent", "–"], ["Received", "–"], ["Lost", "–"], ["Jitter", "–"], ["Concealed", "–"],
  ]);
  if (!peer || peer.connectionState === "closed") return shown;
  const found = [...(await peer.getStats()).values()];
  const one = (type, test = () => true) => found.find((entry) => entry.type === type && test(entry));
  const by = (id) => found.find((entry) => entry.id === id);
  shown.set("ICE", peer.iceConnectionState);
  const transport = one("transport");
  shown.set("DTLS", transport?.dtlsState ?? peer.connectionState);
  shown.set("SRTP", transport?.srtpCipher ?? "–");
  const pair = by(transport?.selectedCandidatePairId) ?? one("candidate-pair", (entry) => entry.selected || (entry.nominated && entry.state === "succeeded"));
  if (pair) {
    const [local, remote] = [by(pair.localCandidateId), by(pair.remoteCandidateId)];
    if (local && remote) shown.set("Path", `${local.candidateType} ${local.protocol} → ${remote.candidateType} ${remote.address ?? ""}:${remote.port}`);
    if (pair.currentRoundTripTime !== undefined) shown.set("Round trip", `${Math.round(1000 * pair.currentRoundTripTime)} ms`);
  }
  const received = one("inbound-rtp", (entry) => entry.kind === "audio");
  const sent = one("outbound-rtp", (entry) => entry.kind === "audio");
  const codec = by(received?.codecId) ?? by(sent?.codecId);
  if (codec) shown.set("Codec", `${codec.mimeType.replace("audio/", "")} ${codec.clockRate / 1000} kHz, payload type ${codec.payloadType}`);
  if (sent) shown.set("Sent", `${sent.packetsSent} packets`);
  if (received) {
    shown.set("Received", `${received.packetsReceived} packets`);
    shown.set("Lost", `${received.packetsLost}`);
    shown.set("Jitter", `${Math.round(1000 * received.jitter)} ms`);
    if (received.totalSamplesReceived) shown.set("Concealed", `${((100 * received.concealedSamples) / received.totalSamplesReceived).toFixed(1)} %`);
  }
  return shown;
}
