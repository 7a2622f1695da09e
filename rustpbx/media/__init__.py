"""Audio: SDP, RTP and RTCP, codecs, and the clocked plane that moves it."""
