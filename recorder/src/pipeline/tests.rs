//! The pipeline against simulated cameras: jitter, drift, jumps, bursts, B frames, parameter changes, host clock steps.

use bytes::Bytes;
use corenvr_media::{AudioCodec, AudioParameters, VideoCodec, VideoParameters};
use proptest::prelude::*;

use super::*;

const EPOCH: i64 = 1_795_168_800_000_000;
const FRAME_US: i64 = 40_000;

fn video_parameters(width: u32) -> Arc<CodecParameters> {
    Arc::new(CodecParameters::Video(VideoParameters {
        codec: VideoCodec::H264,
        extra: Bytes::from(vec![1, width as u8]),
        width,
        height: 1080,
        frame_rate: None,
    }))
}

fn audio_parameters() -> Arc<CodecParameters> {
    Arc::new(CodecParameters::Audio(AudioParameters {
        codec: AudioCodec::Pcma,
        extra: Bytes::new(),
        sample_rate: 8000,
        channels: 1,
    }))
}

fn limits(seconds: u64) -> SegmentLimits {
    SegmentLimits {
        length: Duration::from_secs(seconds),
        first: Duration::from_secs(seconds),
    }
}

fn pipeline(seconds: u64, audio: bool) -> Pipeline {
    pipeline_with(seconds, audio.then_some(8000), Clocks::Separate)
}

fn pipeline_with(seconds: u64, audio_rate: Option<u32>, clocks: Clocks) -> Pipeline {
    let setup = |rate, parameters| TrackSetup {
        rate,
        parameters: Some(parameters),
    };
    Pipeline::new(
        limits(seconds),
        setup(90_000, video_parameters(64)),
        audio_rate.map(|rate| setup(rate, audio_parameters())),
        clocks,
        None,
        None,
    )
}

fn at(us: i64) -> HostTime {
    HostTime {
        mono_us: 5_000_000 + us,
        wall: WallTime::from_micros(EPOCH + us),
    }
}

fn unit(stamp: u32, key: bool, tag: u32) -> AccessUnit {
    AccessUnit {
        timestamp: stamp,
        key,
        data: Bytes::copy_from_slice(&tag.to_be_bytes()),
        lost: 0,
        damaged: false,
        parameters: None,
    }
}

fn stamp(us: i64) -> u32 {
    (us * 9 / 100) as u32
}

fn drain(p: &mut Pipeline) -> (Vec<Frame>, Vec<(usize, SegmentStart)>) {
    let (mut frames, mut starts) = (Vec::new(), Vec::new());
    while let Some(out) = p.poll() {
        match out {
            Output::Frame(f) => frames.push(f),
            Output::Segment(s) => starts.push((frames.len(), s)),
            Output::NeedKeyFrame => {}
        }
    }
    (frames, starts)
}

fn micros(f: &Frame) -> i64 {
    f.time.as_micros() - EPOCH
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever the jitter and the drift: spacing as stamped within 500 ppm, position within the least delay and some, nothing lost.
    #[test]
    fn jitter_and_drift_do_not_move_the_time_line(
        drift_ppm in -200i64..200,
        first in any::<u32>(),
        jitters in prop::collection::vec(0i64..80_000, 3000),
    ) {
        let mut p = pipeline(30, false);
        let mut arrival = 0;
        for (i, jitter) in jitters.iter().enumerate() {
            let taken = i as i64 * FRAME_US;
            let stamped = taken + taken * drift_ppm / 1_000_000;
            // TCP: in order, however late.
            arrival = arrival.max(taken + 3000 + jitter);
            p.unit(Track::Video, unit(first.wrapping_add(stamp(stamped)), i % 50 == 0, i as u32), at(arrival));
        }
        let (frames, starts) = drain(&mut p);
        prop_assert_eq!(frames.len(), jitters.len());
        prop_assert!(frames.iter().enumerate().all(|(i, f)| f.data[..] == (i as u32).to_be_bytes()));
        for w in frames.windows(2) {
            let spacing = micros(&w[1]) - micros(&w[0]);
            let wanted = FRAME_US + FRAME_US * drift_ppm / 1_000_000;
            prop_assert!((spacing - wanted).abs() <= FRAME_US * 500 / 1_000_000 + 12, "{}", spacing);
        }
        for (i, f) in frames.iter().enumerate() {
            let off = micros(f) - i as i64 * FRAME_US;
            prop_assert!((-10_000..=85_000).contains(&off), "frame {} is off by {}", i, off);
        }
        prop_assert_eq!(p.counts().jumps, 0);
        prop_assert!(starts.iter().all(|(i, _)| i % 50 == 0));
        prop_assert!(starts.len() as i64 >= 3000 * FRAME_US / 32_000_000);
    }

    /// Stamps may do anything at all: no frame is lost, time never runs backward, and it stays near the arrivals.
    #[test]
    fn no_stamps_can_lose_frames_or_turn_time_back(
        stamps in prop::collection::vec(prop_oneof![
            6 => (0u32..7200).prop_map(Err),
            1 => any::<u32>().prop_map(Ok),
            1 => Just(Ok(0)),
        ], 50..1500),
    ) {
        let mut p = pipeline(10, false);
        let mut stamp = 0u32;
        for (i, s) in stamps.iter().enumerate() {
            stamp = match s { Ok(jump) => *jump, Err(step) => stamp.wrapping_add(*step) };
            p.unit(Track::Video, unit(stamp, i % 25 == 0, i as u32), at(i as i64 * FRAME_US));
        }
        p.finish();
        let (frames, starts) = drain(&mut p);
        prop_assert_eq!(frames.len(), stamps.len());
        let mut key = i64::MIN;
        for (i, f) in frames.iter().enumerate() {
            let now = i as i64 * FRAME_US;
            prop_assert!(micros(f) <= now + 2_100_000 && micros(f) >= now - 15_000_000, "frame {} at {}, came at {}", i, micros(f), now);
            if f.key {
                prop_assert!(micros(f) >= key, "key frames run backward at {}", i);
                key = micros(f);
            }
        }
        prop_assert!(starts.iter().all(|(i, _)| frames[*i].key));
    }
}

#[test]
fn a_burst_at_the_start_of_a_connection_is_placed_in_the_past() {
    let mut p = pipeline(60, false);
    // Two seconds of stored frames at once, then live.
    for i in 0..100i64 {
        let arrival = if i < 50 {
            2_000_000 + i * 1000
        } else {
            2_000_000 + (i - 49) * FRAME_US
        };
        p.unit(Track::Video, unit(stamp(i * FRAME_US), i == 0, i as u32), at(arrival));
    }
    let (frames, _) = drain(&mut p);
    assert_eq!(frames.len(), 100);
    assert!((micros(&frames[0]) - 40_000).abs() < 45_000, "{}", micros(&frames[0]));
    assert!(
        frames
            .windows(2)
            .all(|w| (micros(&w[1]) - micros(&w[0]) - FRAME_US).abs() < 100)
    );
}

#[test]
fn a_reset_of_the_stamps_starts_a_segment_at_the_next_key_frame() {
    let mut p = pipeline(600, false);
    for i in 0..300i64 {
        let media = if i < 110 {
            1_000_000_000 + i * FRAME_US
        } else {
            (i - 110) * FRAME_US
        };
        p.unit(
            Track::Video,
            unit(stamp(media), i % 50 == 0, i as u32),
            at(i * FRAME_US),
        );
    }
    let (frames, starts) = drain(&mut p);
    assert_eq!(frames.len(), 300);
    assert_eq!(
        starts.iter().map(|(i, s)| (*i, s.cause)).collect::<Vec<_>>(),
        [(0, None), (150, Some(GapCause::Clock))]
    );
    assert!(
        frames
            .windows(2)
            .all(|w| (micros(&w[1]) - micros(&w[0]) - FRAME_US).abs() < 2000)
    );
    assert_eq!(p.counts().jumps, 1);
}

#[test]
fn constant_stamps_are_replaced_by_arrivals() {
    let mut p = pipeline(600, false);
    for i in 0..300i64 {
        p.unit(Track::Video, unit(0, i % 50 == 0, i as u32), at(i * FRAME_US));
    }
    let (frames, starts) = drain(&mut p);
    assert_eq!((frames.len(), starts.len()), (300, 1));
    assert!(
        frames
            .iter()
            .enumerate()
            .all(|(i, f)| (micros(f) - i as i64 * FRAME_US).abs() < 20_000)
    );
}

#[test]
fn a_wrong_clock_rate_ends_in_arrival_spacing() {
    for (num, den) in [(2, 1), (1, 3), (101, 100)] {
        let mut p = pipeline(600, false);
        for i in 0..12_000i64 {
            p.unit(
                Track::Video,
                unit(stamp(i * FRAME_US * num / den), i % 50 == 0, i as u32),
                at(i * FRAME_US),
            );
        }
        let (frames, _) = drain(&mut p);
        assert_eq!(frames.len(), 12_000);
        assert!(p.video.clock.is_by_arrival(), "{num}/{den}");
        assert!(
            frames
                .iter()
                .enumerate()
                .all(|(i, f)| (micros(f) - i as i64 * FRAME_US).abs() < 16_000_000)
        );
        let last = micros(&frames[11_999]) - 11_999 * FRAME_US;
        assert!(last.abs() < 50_000, "{num}/{den}: {last}");
    }
}

#[test]
fn b_frames_keep_their_order_and_their_times() {
    let mut p = pipeline(2, false);
    // Decode order I P B B: shown 0, 3, 1, 2 ...
    let shown = |i: i64| match i % 4 {
        0 => i,
        1 => i + 2,
        _ => i - 1,
    };
    for i in 0..1000i64 {
        let arrival = (i + 3) * FRAME_US;
        p.unit(
            Track::Video,
            unit(stamp(shown(i) * FRAME_US), i % 48 == 0, i as u32),
            at(arrival),
        );
    }
    let (frames, starts) = drain(&mut p);
    assert_eq!(frames.len(), 1000);
    assert_eq!(p.counts().jumps, 0);
    assert!(starts.len() >= 10);
    let zero = micros(&frames[0]);
    assert!(
        frames
            .iter()
            .enumerate()
            .all(|(i, f)| (micros(f) - zero - shown(i as i64) * FRAME_US).abs() < 20_000)
    );
}

#[test]
fn a_step_of_the_host_clock_starts_a_segment_on_the_new_time() {
    for step in [3_600_000_000, -3_600_000_000, 700_000] {
        let mut p = pipeline(600, false);
        for i in 0..300i64 {
            let mut now = at(i * FRAME_US);
            if i >= 120 {
                now.wall = now.wall.offset(step);
            }
            p.unit(Track::Video, unit(stamp(i * FRAME_US), i % 50 == 0, i as u32), now);
        }
        let (frames, starts) = drain(&mut p);
        assert_eq!(frames.len(), 300);
        assert_eq!(starts[1].0, 150);
        assert_eq!(starts[1].1.cause, Some(GapCause::Clock));
        assert_eq!(starts.len(), 2);
        assert!((micros(&frames[149]) - 149 * FRAME_US).abs() < 1000);
        assert!((micros(&frames[150]) - 150 * FRAME_US - step).abs() < 1000);
    }
}

#[test]
fn a_small_host_correction_is_slewed() {
    let mut p = pipeline(6000, false);
    for i in 0..5000i64 {
        let mut now = at(i * FRAME_US);
        now.wall = now.wall.offset(if i >= 100 { 300_000 } else { 0 });
        p.unit(Track::Video, unit(stamp(i * FRAME_US), i % 50 == 0, i as u32), now);
    }
    let (frames, starts) = drain(&mut p);
    assert_eq!(starts.len(), 1);
    assert!(
        frames
            .windows(2)
            .all(|w| (micros(&w[1]) - micros(&w[0]) - FRAME_US).abs() <= 21)
    );
    assert!(micros(&frames[4999]) - 4999 * FRAME_US > 25_000);
}

#[test]
fn only_a_real_change_of_parameters_splits_and_only_at_a_key_frame() {
    let mut p = pipeline(600, false);
    for i in 0..300u32 {
        let mut u = unit(stamp(i64::from(i) * FRAME_US), i % 50 == 0, i);
        u.parameters = match i {
            0 | 100 => Some(video_parameters(64)),
            120 | 200 => Some(video_parameters(32)),
            _ => None,
        };
        p.unit(Track::Video, u, at(i64::from(i) * FRAME_US));
    }
    let (frames, starts) = drain(&mut p);
    assert_eq!(frames.len(), 300);
    assert_eq!(starts.iter().map(|s| s.0).collect::<Vec<_>>(), [0, 150]);
    assert_eq!(starts[1].1.parameters[0], *video_parameters(32));
    assert_eq!(starts[1].1.cause, None);
}

#[test]
fn segments_start_at_key_frames_after_their_length_and_a_missing_key_frame_is_asked_for() {
    let mut p = pipeline(10, false);
    for i in 0..1000u32 {
        p.unit(
            Track::Video,
            unit(stamp(i64::from(i) * FRAME_US), i % 60 == 0, i),
            at(i64::from(i) * FRAME_US),
        );
    }
    let (frames, starts) = drain(&mut p);
    assert_eq!(frames.len(), 1000);
    assert_eq!(starts.iter().map(|s| s.0).collect::<Vec<_>>(), [0, 300, 600, 900]);
    let mut asked = 0;
    for i in 1000..6000u32 {
        p.unit(
            Track::Video,
            unit(stamp(i64::from(i) * FRAME_US), false, i),
            at(i64::from(i) * FRAME_US),
        );
        while let Some(out) = p.poll() {
            asked += u32::from(out == Output::NeedKeyFrame);
        }
    }
    assert_eq!(asked, 1);
}

#[test]
fn what_comes_before_a_key_frame_or_was_recorded_before_is_left_out() {
    let setup = TrackSetup {
        rate: 90_000,
        parameters: Some(video_parameters(64)),
    };
    let not_before = WallTime::from_micros(EPOCH + 3_000_000);
    let mut p = Pipeline::new(
        limits(60),
        setup,
        None,
        Clocks::Separate,
        Some(GapCause::CameraDown),
        Some(not_before),
    );
    for i in 0..200u32 {
        let us = i64::from(i) * FRAME_US;
        p.unit(Track::Video, unit(stamp(us), i % 50 == 20, i), at(us));
    }
    let (frames, starts) = drain(&mut p);
    assert_eq!(frames[0].data[..], 120u32.to_be_bytes());
    assert_eq!(frames.len(), 80);
    assert_eq!(p.counts().before_key, 120);
    assert_eq!(starts[0].1.cause, Some(GapCause::CameraDown));
}

#[test]
fn sender_reports_put_sound_beside_its_picture() {
    let mut p = pipeline(600, true);
    // The sound reaches us 400 ms later than the picture of the same moment.
    let ntp = |us: i64| WallTime::from_micros(EPOCH - 77_000_000 + us).to_ntp();
    let report = |us: i64, rtp: u32| SenderInfo {
        ntp: ntp(us),
        rtp,
        packets: 0,
        octets: 0,
    };
    for i in 0..500i64 {
        let us = i * FRAME_US;
        p.unit(Track::Video, unit(stamp(us), i % 50 == 0, i as u32), at(us));
        if i >= 10 {
            let sound = us - 400_000;
            p.unit(Track::Audio, unit((sound * 8 / 1000) as u32, true, i as u32), at(us));
        }
        if i == 100 {
            p.sender_report(Track::Video, &report(us, stamp(us)));
            p.sender_report(Track::Audio, &report(us, (us * 8 / 1000) as u32));
        }
    }
    let (frames, _) = drain(&mut p);
    let sound: Vec<_> = frames.iter().filter(|f| f.track == TrackId(1)).collect();
    assert_eq!(sound.len(), 490);
    assert!(sound.windows(2).all(|w| w[0].time <= w[1].time));
    let last = micros(sound[489]) - (499 * FRAME_US - 400_000);
    assert!(last.abs() < 5000, "{last}");
    // A report that is nonsense is not believed.
    p.sender_report(Track::Audio, &report(90_000_000, 0));
    p.unit(
        Track::Audio,
        unit(((500 * FRAME_US - 400_000) * 8 / 1000) as u32, true, 0),
        at(500 * FRAME_US),
    );
    let (frames, _) = drain(&mut p);
    assert!((micros(&frames[0]) - (500 * FRAME_US - 400_000)).abs() < 6000);
}

#[test]
fn a_hole_from_lost_packets_is_told() {
    let mut p = pipeline(600, false);
    for i in (0..100u32).chain(170..300) {
        let mut u = unit(stamp(i64::from(i) * FRAME_US), i % 50 == 0, i);
        u.lost = if i == 170 { 900 } else { 0 };
        p.unit(Track::Video, u, at(i64::from(i) * FRAME_US));
    }
    let (frames, starts) = drain(&mut p);
    assert_eq!(frames.len(), 230);
    assert_eq!(
        starts.iter().map(|(i, s)| (*i, s.cause)).collect::<Vec<_>>(),
        [(0, None), (130, Some(GapCause::Loss))]
    );
}

/// Sound that a sender interleaves late is no later for that: on one clock it lies where the picture of the same stamp does.
#[test]
fn sound_on_the_clock_of_the_picture_lies_where_the_stamps_say() {
    let mut p = pipeline_with(30, Some(90_000), Clocks::Shared);
    let late_us = 400_000;
    let mut events: Vec<(i64, Track, i64)> = (0..500)
        .flat_map(|i| {
            let taken = i * FRAME_US;
            [(taken, Track::Video, taken), (taken + late_us, Track::Audio, taken)]
        })
        .collect();
    events.sort_by_key(|e| e.0);
    for (arrival, track, taken) in events {
        let key = track == Track::Audio || taken % (50 * FRAME_US) == 0;
        p.unit(track, unit(stamp(taken), key, (taken / FRAME_US) as u32), at(arrival));
    }
    p.finish();
    let (frames, _) = drain(&mut p);
    let time_of = |track: u8, data: &Bytes| {
        let found = frames.iter().find(|f| f.track.0 == track && f.data == *data);
        found.map(micros)
    };
    let mut compared = 0;
    for sound in frames.iter().filter(|f| f.track.0 == 1) {
        let Some(picture) = time_of(0, &sound.data) else {
            continue;
        };
        assert!((micros(sound) - picture).abs() < 2000, "{} {picture}", micros(sound));
        compared += 1;
    }
    assert!(compared > 480, "{compared}");
}

/// Nobody announces the sound of an RTMP stream: it shows itself, a moment after the first picture.
#[test]
fn sound_that_shows_itself_a_moment_later_is_in_the_first_segment() {
    let setup = |parameters| TrackSetup { rate: 1000, parameters };
    let mut p = Pipeline::new(limits(30), setup(None), Some(setup(None)), Clocks::Shared, None, None);
    for i in 0..100u32 {
        let mut picture = unit(i * 40, i % 50 == 0, i);
        picture.parameters = (i == 0).then(|| video_parameters(64));
        p.unit(Track::Video, picture, at(i64::from(i) * FRAME_US));
        if i >= 5 {
            let mut sound = unit(i * 40, true, i);
            sound.parameters = (i == 5).then(audio_parameters);
            p.unit(Track::Audio, sound, at(i64::from(i) * FRAME_US));
        }
    }
    let (frames, starts) = drain(&mut p);
    assert_eq!(starts.len(), 1);
    assert_eq!(starts[0].1.parameters.len(), 2);
    assert_eq!(frames.iter().filter(|f| f.track.0 == 1).count(), 95);
}

#[test]
fn frames_that_catch_up_with_a_late_start_are_no_jump() {
    let mut p = pipeline(600, false);
    for i in 0..200i64 {
        // The first frames all come late; those after them wait, and come at once when there is nothing left to wait for.
        let arrival = if i < 50 {
            i * FRAME_US + 800_000
        } else {
            (i * FRAME_US).max(50 * FRAME_US + 800_000)
        };
        p.unit(
            Track::Video,
            unit(stamp(i * FRAME_US), i % 50 == 0, i as u32),
            at(arrival),
        );
    }
    let (frames, _) = drain(&mut p);
    assert_eq!((frames.len(), p.counts().jumps), (200, 0));
    for pair in frames.windows(2) {
        let spacing = micros(&pair[1]) - micros(&pair[0]);
        assert!((spacing - FRAME_US).abs() < 1000, "{spacing}");
    }
}

/// A picture is known to be whole only when the next one begins, so the sound between the two comes first.
#[test]
fn sound_that_comes_before_the_first_picture_of_its_time_is_kept() {
    let mut p = pipeline_with(30, Some(90_000), Clocks::Shared);
    // Sound of the moment before the key frame belongs to nothing that is recorded.
    p.unit(Track::Audio, unit(stamp(980_000), true, 100), at(0));
    for i in 0..2 {
        let us = 1_000_000 + i64::from(i) * 20_000;
        p.unit(Track::Audio, unit(stamp(us), true, 101 + i), at(1000));
    }
    for i in 0..50 {
        let us = i64::from(i) * FRAME_US;
        p.unit(Track::Video, unit(stamp(1_000_000 + us), i == 0, i), at(us + FRAME_US));
    }
    p.finish();
    let (frames, starts) = drain(&mut p);
    let order: Vec<_> = frames.iter().take(4).map(|f| f.data[3]).collect();
    assert_eq!(order, [0, 101, 102, 1]);
    assert_eq!(starts.len(), 1);
    assert!((micros(&frames[1]) - micros(&frames[0])).abs() < 2000);
    assert_eq!(p.counts().before_key, 1);
}
