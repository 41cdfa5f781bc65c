//! Entry points for fuzzers: any bytes as what a device sends, and what must hold for what comes out.

use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};

use super::{MediaReceiver, PayloadFormat, Received, TcpFraming, Track};
use crate::ps::{StreamKind, fuzzing::check_unit};

/// A TCP stream, cut into pieces of 1 to 256 bytes by the first byte.
pub fn tcp_framing(data: &[u8]) {
    let Some((&piece, stream)) = data.split_first() else {
        return;
    };
    let run = |piece: usize| {
        let (mut framing, mut input) = (TcpFraming::new(), BytesMut::new());
        let mut packets: Vec<Bytes> = Vec::new();
        for bytes in stream.chunks(piece) {
            input.extend_from_slice(bytes);
            while let Some(packet) = framing.next_packet(&mut input) {
                assert!(packet.len() >= 8, "a packet without a header");
                packets.push(packet);
            }
            assert!(
                input.len() <= 65_535 + 4 + bytes.len() + 65_535,
                "what is kept is bounded"
            );
        }
        let out: usize = packets.iter().map(Bytes::len).sum();
        assert!(out as u64 + framing.skipped_bytes() + input.len() as u64 <= stream.len() as u64);
        (packets, framing.skipped_bytes())
    };
    assert_eq!(
        run(usize::from(piece) + 1),
        run(stream.len().max(1)),
        "the cuts change nothing"
    );
}

/// Packets, each behind its 16-bit length; the first byte chooses formats and transport.
pub fn media(data: &[u8]) {
    let Some((&choice, mut rest)) = data.split_first() else {
        return;
    };
    let names = [
        ("PS", 96, 90_000),
        ("H264", 98, 90_000),
        ("H265", 100, 90_000),
        ("MPEG4-GENERIC", 97, 16_000),
    ];
    let formats: Vec<_> = names
        .iter()
        .enumerate()
        .filter(|(i, _)| choice >> i & 1 != 0)
        .map(|(_, &(name, payload_type, clock_rate))| PayloadFormat {
            payload_type,
            encoding: name.to_owned(),
            clock_rate,
        })
        .collect();
    let (in_order, asked) = (choice & 0x10 != 0, (choice & 0x20 != 0).then_some(7));
    let Ok(mut receiver) = MediaReceiver::new(&formats, asked, in_order, choice & 0x40 == 0) else {
        return;
    };
    let start = Instant::now();
    let (mut packets, mut told) = (0u64, 0);
    let mut parameters = [None, None];
    let mut check = |receiver: &mut MediaReceiver, now| {
        while let Some(received) = receiver.poll(now) {
            let Received::Unit { track, unit } = received else {
                continue;
            };
            told += u64::from(unit.lost);
            let kind = if track == Track::Audio {
                StreamKind::Audio
            } else {
                StreamKind::Video
            };
            let current = &mut parameters[usize::from(track == Track::Audio)];
            if unit.parameters.is_some() {
                current.clone_from(&unit.parameters);
            }
            if receiver.clock_rates().0 == 90_000 && current.is_some() {
                check_unit(kind, &unit, current.as_deref());
            }
        }
    };
    while let Some((length, tail)) = rest.split_first_chunk::<2>() {
        let len = usize::from(u16::from_be_bytes(*length)).min(tail.len());
        let (packet, tail) = tail.split_at(len);
        rest = tail;
        packets += 1;
        let now = start + Duration::from_millis(packets * 20);
        receiver.packet(now, Bytes::copy_from_slice(packet));
        check(&mut receiver, now);
    }
    let now = start + Duration::from_millis(packets * 20);
    let _ = receiver.report(now);
    receiver.flush(now);
    check(&mut receiver, now);
    let counts = receiver.counts();
    assert!(told <= counts.reorder.lost, "{told} told, {counts:?}");
    assert!(counts.malformed <= packets * 2 && counts.foreign_ssrc <= packets);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(400))]
        #[test]
        fn promises_hold_for_any_bytes(data: Vec<u8>) {
            super::tcp_framing(&data);
            super::media(&data);
        }

        /// Frames with heads that lead deep, and junk between them.
        #[test]
        fn promises_hold_for_framed_packets(
            choice: u8,
            frames in prop::collection::vec((any::<bool>(), any::<u8>(), 0u16..30, prop::collection::vec(any::<u8>(), 0..30)), 1..30),
        ) {
            let mut data = vec![choice];
            for (junk, second, sequence, payload) in frames {
                if !junk {
                    data.extend(if choice & 1 == 0 { &b"$\0"[..] } else { &[] });
                    data.extend((12 + payload.len() as u16).to_be_bytes());
                    data.extend([0x80, if second < 128 { 96 } else { second }]);
                    data.extend(sequence.to_be_bytes());
                    data.extend([0, 0, 0, 0, 0, 0, 0, second & 1]);
                }
                data.extend(payload);
            }
            super::tcp_framing(&data);
            super::media(&data);
        }
    }
}
