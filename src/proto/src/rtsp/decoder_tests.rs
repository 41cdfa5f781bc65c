//! Every message at every split point, limits, and what cameras put between messages.

use proptest::prelude::*;

use super::*;

fn all(decoder: &mut Decoder, input: &mut BytesMut) -> Result<Vec<Message>, DecodeError> {
    let mut list = Vec::new();
    while let Some(message) = decoder.decode(input)? {
        list.push(message);
    }
    Ok(list)
}

fn read(role: Role, bytes: &[u8]) -> Result<Vec<Message>, DecodeError> {
    all(&mut Decoder::new(role), &mut BytesMut::from(bytes))
}

/// The messages of `bytes`, checked to be the same wherever the bytes are split once, and byte by byte.
fn read_split(role: Role, bytes: &[u8]) -> Vec<Message> {
    let whole = read(role, bytes).unwrap();
    for split in 0..=bytes.len() {
        let mut decoder = Decoder::new(role);
        let mut input = BytesMut::from(&bytes[..split]);
        let mut list = all(&mut decoder, &mut input).unwrap();
        input.extend_from_slice(&bytes[split..]);
        list.extend(all(&mut decoder, &mut input).unwrap());
        assert_eq!(list, whole, "split at {split}");
        assert_eq!(decoder.position() as usize + input.len(), bytes.len());
    }
    let (mut decoder, mut input, mut list) = (Decoder::new(role), BytesMut::new(), Vec::new());
    for b in bytes {
        input.extend_from_slice(&[*b]);
        list.extend(all(&mut decoder, &mut input).unwrap());
    }
    assert_eq!(list, whole, "byte by byte");
    whole
}

fn fault(role: Role, bytes: &[u8]) -> (Fault, u64) {
    let e = read(role, bytes).unwrap_err();
    (e.fault, e.position)
}

fn request(m: &Message) -> &Request {
    match m {
        Message::Request(r) => r,
        other => panic!("not a request: {other:?}"),
    }
}

fn response(m: &Message) -> &Response {
    match m {
        Message::Response(r) => r,
        other => panic!("not a response: {other:?}"),
    }
}

const DIALOGUE: &[u8] = b"\r\n\r\nOPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n\
    $\x00\x00\x03abc$\x01\x00\x00\
    SET_PARAMETER rtsp://h/a RTSP/1.0\r\ncseq:2\r\nContent-Length: 5\r\n\r\nhello\
    RTSP/1.0 200 OK\r\nCSeq: 3\r\nSession: 1;timeout=60\r\n\r\n\
    PLAY rtsp://h/a b?c RTSP/1.0\r\nCSeq : 4 \r\nX-Long: one\r\n two\r\n\tthree\r\nX-Empty:\r\n\r\n";

#[test]
fn a_dialogue_at_every_split_point() {
    for role in [Role::Server, Role::Client] {
        let list = read_split(role, DIALOGUE);
        assert_eq!(list.len(), 6, "{role:?}");
        assert_eq!(request(&list[0]).method, Method::Options);
        assert_eq!(
            list[1],
            Message::Data {
                channel: 0,
                payload: Bytes::from_static(b"abc")
            }
        );
        assert_eq!(
            list[2],
            Message::Data {
                channel: 1,
                payload: Bytes::new()
            }
        );
        assert_eq!(&request(&list[3]).body[..], b"hello");
        assert_eq!(request(&list[3]).headers.cseq(), Some(2));
        assert_eq!(response(&list[4]).status, StatusCode::OK);
        let play = request(&list[5]);
        assert_eq!((play.uri.as_str(), play.headers.cseq()), ("rtsp://h/a b?c", Some(4)));
        assert_eq!(play.headers.get("x-long"), Some("one two three"));
        assert_eq!(play.headers.get("X-Empty"), Some(""));
    }
}

#[test]
fn bare_line_feeds_are_line_ends() {
    let list = read_split(
        Role::Server,
        b"OPTIONS rtsp://h RTSP/1.0\nCSeq: 1\n\nOPTIONS * RTSP/1.0\nCSeq: 2\r\n\n",
    );
    assert_eq!(
        list.iter().map(|m| request(m).headers.cseq()).collect::<Vec<_>>(),
        [Some(1), Some(2)]
    );
}

#[test]
fn packets_share_the_input_buffer() {
    let mut input = BytesMut::from(&b"$\x00\x00\x04datarest"[..]);
    let start = input.as_ptr() as usize + 4;
    let Some(Message::Data { payload, .. }) = Decoder::new(Role::Client).decode(&mut input).unwrap() else {
        panic!("no packet");
    };
    assert_eq!(payload.as_ptr() as usize, start);
    assert_eq!(&input[..], b"rest");
}

#[test]
fn a_message_written_again_reads_the_same() {
    for message in read(Role::Server, DIALOGUE).unwrap() {
        let bytes = match &message {
            Message::Request(r) => r.to_bytes(),
            Message::Response(r) => r.to_bytes(),
            Message::Data { .. } => continue,
        };
        let mut again = read_split(Role::Server, &bytes);
        if let Message::Request(r) = &mut again[0] {
            r.uri = r.uri.replace("%20", " ");
        }
        assert_eq!(again, [message]);
    }
}

#[test]
fn no_value_can_start_a_header_of_its_own() {
    let r = Response::new(StatusCode::NOT_FOUND)
        .because("a\r\nX: y")
        .with("Session", "1\r\nEvil: 2\n\n");
    let list = read(Role::Client, &r.to_bytes()).unwrap();
    assert_eq!((list.len(), response(&list[0]).headers.len()), (1, 1));
    let r = Request::new(Method::Play, "rtsp://h/a\r\nEvil: 1");
    let list = read(Role::Server, &r.to_bytes()).unwrap();
    assert!(request(&list[0]).headers.is_empty());
}

#[test]
fn a_server_ends_at_the_first_byte_that_is_not_rtsp() {
    assert_eq!(fault(Role::Server, b"\x16\x03\x01\x02\x00"), (Fault::NotRtsp, 0));
    assert_eq!(
        fault(Role::Server, b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n\0"),
        (Fault::NotRtsp, 31)
    );
    assert_eq!(fault(Role::Server, b"GET\r\n\r\n"), (Fault::StartLine, 0));
    assert_eq!(fault(Role::Server, b"PLAY rtsp://h\r\n\r\n"), (Fault::StartLine, 0));
    assert_eq!(fault(Role::Server, b"RTSP/1.0 99999 OK\r\n\r\n"), (Fault::StartLine, 0));
    assert_eq!(
        fault(Role::Server, b"PLAY * RTSP/1.0\r\nno colon\r\n\r\n"),
        (Fault::Header, 0)
    );
    assert_eq!(
        fault(Role::Server, b"PLAY * RTSP/1.0\r\n folded\r\n\r\n"),
        (Fault::Header, 0)
    );
}

#[test]
fn limits() {
    let line = format!("PLAY rtsp://h/{}", "x".repeat(START_LINE_BYTES_MAX));
    assert_eq!(fault(Role::Server, line.as_bytes()).0, Fault::StartLineTooLong);
    let line = format!("PLAY rtsp://h/{} RTSP/1.0\r\n\r\n", "x".repeat(URI_BYTES_MAX));
    assert_eq!(fault(Role::Server, line.as_bytes()).0, Fault::StartLineTooLong);

    let head = format!("PLAY * RTSP/1.0\r\nX: {}", "x".repeat(HEAD_BYTES_MAX));
    assert_eq!(fault(Role::Server, head.as_bytes()).0, Fault::HeadTooLarge);
    assert_eq!(fault(Role::Client, head.as_bytes()).0, Fault::HeadTooLarge);

    let headers = |n| format!("PLAY * RTSP/1.0\r\n{}\r\n", "X: y\r\n".repeat(n));
    assert_eq!(read(Role::Server, headers(HEADERS_MAX).as_bytes()).unwrap().len(), 1);
    assert_eq!(
        fault(Role::Server, headers(HEADERS_MAX + 1).as_bytes()).0,
        Fault::TooManyHeaders
    );

    let body = |n: &str| format!("PLAY * RTSP/1.0\r\nContent-Length: {n}\r\n\r\n");
    assert_eq!(fault(Role::Server, body("65537").as_bytes()).0, Fault::BodyTooLarge);
    assert_eq!(
        fault(Role::Server, body("99999999999999999999999").as_bytes()).0,
        Fault::BodyTooLarge
    );
    assert_eq!(fault(Role::Client, body("1048577").as_bytes()).0, Fault::BodyTooLarge);
    // Within the limit nothing is reserved for a claim.
    let mut input = BytesMut::from(body("1048576").as_bytes());
    assert_eq!(Decoder::new(Role::Client).decode(&mut input), Ok(None));
    assert!(input.capacity() < 1024);
    for bad in ["-1", "x", "", "5, 6", "+5"] {
        assert_eq!(
            fault(Role::Server, body(bad).as_bytes()).0,
            Fault::ContentLength,
            "{bad}"
        );
    }
    let two = |a, b| format!("PLAY * RTSP/1.0\r\nContent-Length: {a}\r\ncontent-length: {b}\r\n\r\nab");
    assert_eq!(fault(Role::Server, two(1, 2).as_bytes()).0, Fault::ContentLength);
    assert_eq!(read(Role::Server, two(2, 2).as_bytes()).unwrap().len(), 1);
}

const OK: &[u8] = b"RTSP/1.0 200 OK\r\nCSeq: 1\r\n\r\n";

fn client(parts: &[&[u8]]) -> (Result<Vec<Message>, DecodeError>, u64) {
    let mut decoder = Decoder::new(Role::Client);
    decoder.expect_channel(0);
    decoder.expect_channel(1);
    let mut input = BytesMut::from(&parts.concat()[..]);
    let list = all(&mut decoder, &mut input);
    (list, decoder.skipped())
}

/// An RTP packet on a channel.
fn packet(channel: u8) -> Vec<u8> {
    [&[b'$', channel, 0, 12, 0x80, 96][..], &[7; 10]].concat()
}

/// Canon VB-H47 sends the tail of a broken packet between two good ones; live555-based cameras do when their send buffer
/// was full.
#[test]
fn garbage_between_packets_is_skipped_to_the_next_packet_of_a_known_channel() {
    let garbage = b"\x01\x02$\x09\x00\x10\x80$\x00RTSP?\xff$$";
    let (list, skipped) = client(&[OK, &packet(0), garbage, &packet(1), OK]);
    let list = list.unwrap();
    assert_eq!(list.len(), 4);
    assert!(matches!(list[2], Message::Data { channel: 1, .. }));
    assert_eq!(skipped, garbage.len() as u64);
}

#[test]
fn garbage_before_a_response_is_skipped() {
    let (list, skipped) = client(&[OK, &packet(0), b"\0\0RTS\xff", OK, &packet(0)]);
    assert_eq!((list.unwrap().len(), skipped), (4, 6));
    // What looked like a status line was none.
    let (list, skipped) = client(&[OK, b"RTSP/abc\n\n", OK]);
    assert_eq!((list.unwrap().len(), skipped), (2, 10));
    // Letters that begin no method do not start a search for an empty line.
    let (list, _) = client(&[OK, b"PLAYBACK SETUP ", &packet(0)]);
    assert_eq!(list.unwrap().len(), 2);
}

#[test]
fn garbage_split_anywhere_is_skipped_alike() {
    let bytes = [OK, &packet(0), b"\x01R$\x00\x00RTSP/", OK, &packet(1)].concat();
    for split in 0..bytes.len() {
        let mut decoder = Decoder::new(Role::Client);
        decoder.expect_channel(0);
        decoder.expect_channel(1);
        let mut input = BytesMut::from(&bytes[..split]);
        let mut list = all(&mut decoder, &mut input).unwrap();
        input.extend_from_slice(&bytes[split..]);
        list.extend(all(&mut decoder, &mut input).unwrap());
        assert!(
            matches!(list.last(), Some(Message::Data { channel: 1, .. })),
            "split at {split}: {list:?}"
        );
    }
}

#[test]
fn a_peer_that_is_no_rtsp_server_is_told_at_once() {
    assert_eq!(
        fault(Role::Client, b"HTTP/1.1 400 Bad Request\r\n\r\n"),
        (Fault::NotRtsp, 0)
    );
    assert_eq!(fault(Role::Client, b"SSH-2.0-OpenSSH_9.2\r\n"), (Fault::NotRtsp, 0));
}

#[test]
fn endless_garbage_ends_the_connection() {
    let garbage = vec![0xAA; GARBAGE_BYTES_MAX as usize + 1];
    let (list, _) = client(&[OK, &garbage]);
    assert_eq!(list.unwrap_err().fault, Fault::NotRtsp);
}

/// Any packet counts on a connection in step: ONVIF metadata comes on channels that nobody set up.
#[test]
fn a_packet_on_an_unknown_channel_is_delivered_in_step() {
    let (list, skipped) = client(&[OK, &packet(9), &packet(0)]);
    assert_eq!((list.unwrap().len(), skipped), (3, 0));
}

/// A header line without a colon of a camera is passed over, as VLC does.
#[test]
fn a_camera_may_send_lines_that_are_no_headers() {
    let list = read_split(Role::Client, b"RTSP/1.0 200\r\nCSeq: 1 \r\nnonsense\r\n: x\r\n\r\n");
    assert_eq!(response(&list[0]).headers.len(), 1);
    assert_eq!(response(&list[0]).reason, "");
}

#[test]
fn debug_forms_show_no_secret() {
    let r = Request::new(Method::Play, "rtsp://admin:hunter2@h/x")
        .with("Authorization", "Basic c2VjcmV0")
        .with("Location", "rtsp://admin:hunter2@h/");
    let text = format!("{r:?}");
    assert!(!text.contains("hunter2") && !text.contains("c2VjcmV0"), "{text}");
}

proptest! {
    #[test]
    fn arbitrary_bytes(data in prop::collection::vec(any::<u8>(), 0..600)) {
        crate::rtsp::fuzzing::decode(&data);
    }

    #[test]
    fn mutated_dialogues(
        edits in prop::collection::vec((0..DIALOGUE.len(), any::<u8>()), 0..8),
        cut in 0..DIALOGUE.len(),
        step in any::<u8>(),
    ) {
        let mut data = [&[step][..], DIALOGUE, &DIALOGUE[cut..]].concat();
        for (at, b) in edits {
            data[at + 1] = b;
        }
        crate::rtsp::fuzzing::decode(&data);
    }

    #[test]
    fn arbitrary_headers(text in "[ -~é]{0,80}") {
        crate::rtsp::fuzzing::headers(text.as_bytes());
    }

    #[test]
    fn headers_of_the_right_alphabet(
        text in "(npt|clock|url|RTP/AVP(/TCP)?)[=;,0-9a-z:.TZ+-]{0,60}"
    ) {
        crate::rtsp::fuzzing::headers(text.as_bytes());
    }

    #[test]
    fn arbitrary_urls(text in "(rtsps?://)?[ -~é\n]{0,60}") {
        crate::rtsp::fuzzing::url(text.as_bytes());
    }

    #[test]
    fn urls_of_the_right_alphabet(text in "rtsp://[a-c:@/?#%0-9.&=\\[\\]]{0,40}") {
        crate::rtsp::fuzzing::url(text.as_bytes());
    }
}
