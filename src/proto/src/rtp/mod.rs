//! RTP and RTCP: packets, reordering, depacketizers and packetizers.
