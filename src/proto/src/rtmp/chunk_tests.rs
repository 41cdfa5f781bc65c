//! Tests of the chunk stream, with bytes as senders write them.

use proptest::prelude::*;

use super::*;

fn message(chunk_stream: u32, timestamp: u32, payload: &[u8]) -> Message {
    Message {
        chunk_stream,
        kind: 9,
        timestamp,
        stream_id: 1,
        payload: Bytes::copy_from_slice(payload),
    }
}

fn read_all(reader: &mut ChunkReader, bytes: &[u8], step: usize) -> Result<Vec<Message>, ChunkError> {
    let mut input = BytesMut::new();
    let mut messages = Vec::new();
    for piece in bytes.chunks(step) {
        input.extend_from_slice(piece);
        while let Some(message) = reader.read(&mut input)? {
            messages.push(message);
        }
    }
    Ok(messages)
}

/// A header of type 0 to 2 on chunk stream 4, message type 9.
fn head(format: u8, time: u32, len: usize) -> Vec<u8> {
    let mut out = vec![(format << 6) | 4];
    out.put_uint(u64::from(time.min(EXTENDED)), 3);
    if format <= 1 {
        out.put_uint(len as u64, 3);
        out.put_u8(9);
    }
    if format == 0 {
        out.put_u32_le(1);
    }
    if time >= EXTENDED {
        out.put_u32(time);
    }
    out
}

const NEXT: u8 = 0xC4;

fn times(messages: &[Message]) -> Vec<u32> {
    messages.iter().map(|m| m.timestamp).collect()
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same_at_every_split(
        list in prop::collection::vec((2u32..64, any::<u32>(), prop::collection::vec(any::<u8>(), 0..600)), 0..8),
        chunk_size in 1usize..700,
        step in 1usize..900,
    ) {
        let list: Vec<_> = list.iter().map(|(id, time, payload)| message(*id, *time, payload)).collect();
        let mut writer = ChunkWriter::new();
        writer.set_chunk_size(chunk_size);
        let mut out = BytesMut::new();
        for message in &list {
            writer.write(message, &mut out);
        }
        let mut reader = ChunkReader::new();
        reader.set_chunk_size(chunk_size as u32).unwrap();
        prop_assert_eq!(read_all(&mut reader, &out, step).unwrap(), list);
        prop_assert_eq!(reader.position(), out.len() as u64);
        prop_assert_eq!(reader.partial_bytes, 0);
    }
}

#[test]
fn chunks_of_several_streams_interleave() {
    let mut bytes = head(0, 7, 200);
    bytes.extend([b'a'; 128]);
    let mut sound = head(0, 9, 3);
    sound[0] = 0x06;
    bytes.extend(sound);
    bytes.extend(b"snd");
    bytes.push(NEXT);
    bytes.extend([b'b'; 72]);
    let messages = read_all(&mut ChunkReader::new(), &bytes, 1).unwrap();
    assert_eq!(times(&messages), [9, 7]);
    assert_eq!(messages[0].payload, "snd");
    assert_eq!(messages[1].payload.len(), 200);
    assert!(messages[1].payload.ends_with(b"ab") || messages[1].payload[127..129] == *b"ab");
}

#[test]
fn deltas_add_up_and_a_header_can_be_left_out() {
    let mut bytes = head(0, 1000, 1);
    bytes.push(b'a');
    bytes.extend(head(1, 40, 1));
    bytes.push(b'b');
    bytes.extend(head(2, 20, 0));
    bytes.push(b'c');
    bytes.extend([NEXT, b'd', NEXT, b'e']);
    let messages = read_all(&mut ChunkReader::new(), &bytes, 3).unwrap();
    assert_eq!(times(&messages), [1000, 1040, 1060, 1080, 1100]);
    // Behind a full header the time stamp itself is the delta (section 5.3.1.2.4).
    let mut bytes = head(0, 23, 1);
    bytes.extend([b'a', NEXT, b'b']);
    assert_eq!(times(&read_all(&mut ChunkReader::new(), &bytes, 9).unwrap()), [23, 46]);
}

#[test]
fn long_chunk_stream_ids() {
    for (id, basic) in [(64, vec![0, 0]), (319, vec![0, 255]), (65_599, vec![1, 255, 255])] {
        let mut bytes = head(0, 5, 2);
        bytes.splice(0..1, basic);
        bytes.extend(b"xy");
        let messages = read_all(&mut ChunkReader::new(), &bytes, 1).unwrap();
        assert_eq!((messages[0].chunk_stream, messages[0].timestamp), (id, 5));
    }
}

/// A message of 300 bytes at a time past 4 h 39 min; its type 3 chunks repeat the extended time stamp or do not.
fn extended(repeated: bool, time: u32, fill: u8) -> Vec<u8> {
    let mut bytes = head(0, time, 300);
    for (index, len) in [128, 128, 44].into_iter().enumerate() {
        if index > 0 {
            bytes.push(NEXT);
            if repeated {
                bytes.put_u32(time);
            }
        }
        bytes.extend(vec![fill; len]);
    }
    bytes
}

#[test]
fn type_3_chunks_with_and_without_the_extended_time_stamp() {
    for repeated in [true, false] {
        for step in [1, 7, 1000] {
            let mut bytes = extended(repeated, 0x0100_0000, b'a');
            bytes.extend(extended(repeated, 0x0100_0028, b'b'));
            let messages = read_all(&mut ChunkReader::new(), &bytes, step).unwrap();
            assert_eq!(times(&messages), [0x0100_0000, 0x0100_0028], "{repeated} {step}");
            for (message, fill) in messages.iter().zip([b'a', b'b']) {
                assert!(message.payload.len() == 300 && message.payload.iter().all(|b| *b == fill));
            }
        }
    }
}

#[test]
fn a_message_of_type_3_behind_an_extended_time_stamp() {
    // The time itself again.
    let mut bytes = extended(true, 0x0100_0000, b'a');
    bytes.push(NEXT);
    bytes.put_u32(0x0100_0028);
    bytes.extend([b'b'; 128]);
    for len in [128, 44] {
        bytes.push(NEXT);
        bytes.put_u32(0x0100_0028);
        bytes.extend(vec![b'b'; len]);
    }
    let messages = read_all(&mut ChunkReader::new(), &bytes, 50).unwrap();
    assert_eq!(times(&messages), [0x0100_0000, 0x0100_0028]);
    assert!(messages[1].payload.len() == 300 && messages[1].payload.iter().all(|b| *b == b'b'));
    // Left out by a sender that never repeats it.
    let mut bytes = extended(false, 0x0100_0000, b'a');
    for len in [128, 128, 44] {
        bytes.push(NEXT);
        bytes.extend(vec![b'b'; len]);
    }
    let messages = read_all(&mut ChunkReader::new(), &bytes, 50).unwrap();
    assert_eq!(times(&messages), [0x0100_0000, 0x0100_0000]);
    assert!(messages[1].payload.len() == 300 && messages[1].payload.iter().all(|b| *b == b'b'));
}

#[test]
fn time_wraps_at_32_bits() {
    let mut bytes = head(0, 0xFFFF_FFF0, 1);
    bytes.push(b'a');
    bytes.extend(head(1, 0x20, 1));
    bytes.push(b'b');
    bytes.extend([NEXT, b'c']);
    let messages = read_all(&mut ChunkReader::new(), &bytes, 4).unwrap();
    assert_eq!(times(&messages), [0xFFFF_FFF0, 0x10, 0x30]);
}

#[test]
fn an_aborted_message_is_forgotten() {
    let mut reader = ChunkReader::new();
    let mut bytes = head(0, 7, 200);
    bytes.extend([b'a'; 128]);
    assert_eq!(read_all(&mut reader, &bytes, 99), Ok(Vec::new()));
    reader.abort(4);
    reader.abort(5);
    assert_eq!(reader.partial_bytes, 0);
    let mut bytes = head(0, 8, 2);
    bytes.extend(b"ok");
    assert_eq!(times(&read_all(&mut reader, &bytes, 99).unwrap()), [8]);
}

#[test]
fn violations_and_limits() {
    let error = |bytes: &[u8]| read_all(&mut ChunkReader::new(), bytes, 1000).unwrap_err().0;
    assert!(error(&[NEXT]).contains("begins without a header"));
    assert!(error(&head(0, 0, MESSAGE_BYTES_MAX + 1)).contains("longer than the limit"));
    let mut bytes = head(0, 0, 200);
    bytes.extend([0; 128]);
    bytes.extend(head(0, 0, 200));
    assert!(error(&bytes).contains("before the one"));
    let mut many = Vec::new();
    for id in 0..=CHUNK_STREAMS_MAX as u8 {
        many.extend([0, id]);
        many.extend([0; 11]);
    }
    assert!(error(&many).contains("too many chunk streams"));
    assert!(ChunkReader::new().set_chunk_size(0).is_err());

    // What is claimed is not allocated, and what has come is bounded.
    let mut reader = ChunkReader::new();
    reader.set_chunk_size(4 << 20).unwrap();
    let part = vec![0; 4 << 20];
    for id in 3..10 {
        let mut bytes = vec![id];
        bytes.extend(&head(0, 0, MESSAGE_BYTES_MAX)[1..]);
        assert_eq!(read_all(&mut reader, &bytes, 1000), Ok(Vec::new()));
        let claimed = reader.streams.last().unwrap();
        assert_eq!(claimed.partial.capacity(), 0);
        if reader.partial_bytes + part.len() > PARTIAL_BYTES_MAX {
            let error = read_all(&mut reader, &part, 100_000).unwrap_err();
            assert!(error.0.contains("too many unfinished"));
            return;
        }
        assert_eq!(read_all(&mut reader, &part, 100_000), Ok(Vec::new()));
    }
    panic!("no limit");
}
