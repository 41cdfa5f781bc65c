//! The reorder buffer on virtual time.

use bytes::Bytes;
use proptest::prelude::*;

use super::*;

fn packet(ssrc: u32, sequence: u16) -> Packet {
    Packet {
        payload_type: 96,
        marker: false,
        sequence,
        timestamp: 0,
        ssrc,
        extension: None,
        payload: Bytes::new(),
    }
}

fn drain(reorder: &mut Reorder, now: Instant) -> Vec<(u16, u32, Option<Restart>)> {
    std::iter::from_fn(|| reorder.poll(now))
        .map(|o| (o.packet.sequence, o.lost_before, o.restart))
        .collect()
}

fn push_all(reorder: &mut Reorder, now: Instant, sequences: &[u16]) -> Vec<(u16, u32, Option<Restart>)> {
    let mut got = Vec::new();
    for &sequence in sequences {
        reorder.push(now, packet(1, sequence));
        got.extend(drain(reorder, now));
    }
    got
}

#[test]
fn late_packets_are_put_in_order_over_the_wrap() {
    let now = Instant::now();
    let mut reorder = Reorder::udp();
    let got = push_all(&mut reorder, now, &[65_533, 65_535, 1, 65_534, 0, 0, 2]);
    assert_eq!(
        got.iter().map(|g| g.0).collect::<Vec<_>>(),
        [65_533, 65_534, 65_535, 0, 1, 2]
    );
    assert!(got.iter().all(|g| g.1 == 0 && g.2.is_none()));
    assert_eq!(reorder.counts().late, 1);
    assert_eq!(reorder.poll_timeout(), None);
}

#[test]
fn a_gap_is_given_up_when_its_time_is_over() {
    let now = Instant::now();
    let mut reorder = Reorder::udp();
    assert_eq!(push_all(&mut reorder, now, &[10, 13, 12]), [(10, 0, None)]);
    let due = reorder.poll_timeout().unwrap();
    assert_eq!(due, now + WINDOW_TIME);
    assert_eq!(
        drain(&mut reorder, due.checked_sub(Duration::from_micros(1)).unwrap()),
        []
    );
    assert_eq!(drain(&mut reorder, due), [(12, 1, None), (13, 0, None)]);
    // What comes after it was given up is dropped.
    assert_eq!(push_all(&mut reorder, due, &[11, 14]), [(14, 0, None)]);
    assert_eq!(
        reorder.counts(),
        ReorderCounts {
            lost: 1,
            late: 1,
            stray: 0,
            restarts: 0
        }
    );
}

#[test]
fn a_gap_is_given_up_when_the_window_is_full() {
    let now = Instant::now();
    let mut reorder = Reorder::udp();
    let sequences: Vec<u16> = (0..=WINDOW_PACKETS as u16 + 2).filter(|&s| s != 1).collect();
    let got = push_all(&mut reorder, now, &sequences);
    assert_eq!(got[..2], [(0, 0, None), (2, 1, None)]);
    assert_eq!(got.len(), sequences.len());
}

#[test]
fn a_sequence_jump_is_a_restart_not_loss() {
    let now = Instant::now();
    for mut reorder in [Reorder::udp(), Reorder::tcp()] {
        let got = push_all(&mut reorder, now, &[100, 101, 40_000, 40_001, 40_002]);
        let restart = Some(Restart::Sequence);
        assert_eq!(
            got,
            [
                (100, 0, None),
                (101, 0, None),
                (40_000, 0, restart),
                (40_001, 0, None),
                (40_002, 0, None)
            ]
        );
        assert_eq!(reorder.counts().lost, 0);
    }
}

#[test]
fn another_source_is_a_restart() {
    let now = Instant::now();
    let mut reorder = Reorder::udp();
    push_all(&mut reorder, now, &[5]);
    reorder.push(now, packet(2, 8));
    assert_eq!(drain(&mut reorder, now), []);
    reorder.push(now, packet(2, 7));
    let restart = Some(Restart::Ssrc { from: 1, to: 2 });
    assert_eq!(drain(&mut reorder, now), [(7, 0, restart), (8, 0, None)]);
}

#[test]
fn one_stray_packet_does_not_reset_the_stream() {
    let now = Instant::now();
    let mut reorder = Reorder::udp();
    assert_eq!(push_all(&mut reorder, now, &[5, 6, 30_000, 7, 8]).len(), 4);
    assert_eq!(reorder.counts().restarts, 0);
}

#[test]
fn a_transport_in_order_tells_gaps_at_once() {
    let now = Instant::now();
    let mut reorder = Reorder::tcp();
    assert_eq!(push_all(&mut reorder, now, &[1, 1, 4]), [(1, 0, None), (4, 2, None)]);
    assert_eq!(reorder.counts().late, 1);
}

#[test]
fn an_unpolled_buffer_is_bounded_and_tells_what_it_dropped() {
    let now = Instant::now();
    for mut reorder in [Reorder::tcp(), Reorder::udp()] {
        for sequence in 0..READY_MAX as u16 + 10 {
            reorder.push(now, packet(1, sequence));
        }
        assert_eq!(drain(&mut reorder, now).len(), READY_MAX);
        let got = push_all(&mut reorder, now, &[READY_MAX as u16 + 10]);
        let later = now + WINDOW_TIME;
        let got = [got, drain(&mut reorder, later)].concat();
        assert_eq!(got, [(READY_MAX as u16 + 10, 10, None)]);
    }
}

proptest! {
    /// Any order within the window gives the order sent; any loss is counted exactly.
    #[test]
    fn loss_and_order_are_exact(
        start: u16,
        fates in prop::collection::vec((prop::bool::weighted(0.9), 0u32..20), 1..200),
    ) {
        let now = Instant::now();
        let mut reorder = Reorder::udp();
        let mut arrivals: Vec<(u32, u16)> = vec![(0, start)];
        for (i, (kept, delay)) in fates.iter().enumerate() {
            if *kept {
                let i = i as u32 + 1;
                arrivals.push((i + delay, start.wrapping_add(i as u16)));
            }
        }
        let sent: Vec<u16> = arrivals.iter().map(|a| a.1).collect();
        arrivals[1..].sort_unstable();
        let order: Vec<u16> = arrivals.iter().map(|a| a.1).collect();
        let mut got = push_all(&mut reorder, now, &order);
        reorder.flush();
        got.extend(drain(&mut reorder, now));
        prop_assert_eq!(got.iter().map(|g| g.0).collect::<Vec<_>>(), sent.clone());
        let lost: u32 = got.iter().map(|g| g.1).sum();
        let last = sent[sent.len() - 1].wrapping_sub(start);
        prop_assert_eq!(lost as usize, usize::from(last) + 1 - sent.len());
    }

    #[test]
    fn any_sequence_ends_and_stays_bounded(packets in prop::collection::vec((0u32..3, any::<u16>(), 0u64..100), 0..400)) {
        let mut now = Instant::now();
        let mut reorder = Reorder::udp();
        for (ssrc, sequence, ms) in packets {
            now += Duration::from_millis(ms);
            reorder.push(now, packet(ssrc, sequence));
            prop_assert!(reorder.waiting.len() <= WINDOW_PACKETS);
            for ordered in std::iter::from_fn(|| reorder.poll(now)) {
                prop_assert!(ordered.lost_before < u32::from(DROPOUT_MAX));
            }
        }
    }
}
