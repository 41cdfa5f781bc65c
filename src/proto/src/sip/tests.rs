//! Messages as RFC 3261 and devices write them, and transactions on virtual time.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use proptest::prelude::*;

use super::{
    transaction::{Due, RESPONSES_MAX, TRANSACTIONS_MAX, cancel},
    *,
};

/// The shape of the example of RFC 3261 section 7.3.1 with everything that may be bent.
const BENT: &str = "\r\n\r\nINVITE sip:vivekg@chair-dnrc.example.com;unknownparam SIP/2.0\r\n\
    TO :\r\n sip:vivekg@chair-dnrc.example.com ;   tag    = 1918181833n\r\n\
    from   : \"J Rosenberg \\\\\\\"\" <sip:jdrosen@example.com>\r\n  ;\r\n  tag = 98asjd8\r\n\
    MaX-fOrWaRdS: 0068\r\nCall-ID: wsinv.ndaksdj@192.0.2.1\r\nl   : 4\r\ncseq: 0009\r\n  INVITE\r\n\
    Via  : SIP  /   2.0\r\n /UDP\r\n    192.0.2.2;branch=390skdjuw\r\ns :\r\nNewFangledHeader:   newfangled value\r\n continued newfangled value\r\n\
    v:  SIP  / 2.0  / TCP     spindle.example.com   ;\r\n  branch  =   z9hG4bK9ikj8  ,\r\n SIP  /    2.0   / UDP  192.168.255.111   ; branch=\r\n z9hG4bK30239\r\n\
    m:\"Quoted string \\\"\\\"\" <sip:jdrosen@example.com> ; newparam =\r\n      newvalue ;\r\n  secondparam ; q = 0.33\r\n\r\nv=0\n";

fn parse(text: &str) -> Message {
    parse_datagram(text.as_bytes()).unwrap().unwrap()
}

fn request(text: &str) -> Request {
    match parse(text) {
        Message::Request(r) => r,
        Message::Response(r) => panic!("{r:?}"),
    }
}

fn response(text: &str) -> Response {
    match parse(text) {
        Message::Response(r) => r,
        Message::Request(r) => panic!("{r:?}"),
    }
}

/// "A short tortuous INVITE", RFC 4475 section 3.1.1.1.
#[test]
fn a_tortuous_invite_is_read() {
    let message = parse(BENT);
    let (to, from) = (message.to().unwrap(), message.from().unwrap());
    assert_eq!((to.user().as_deref(), to.tag()), (Some("vivekg"), Some("1918181833n")));
    assert_eq!((from.user().as_deref(), from.tag()), (Some("jdrosen"), Some("98asjd8")));
    let cseq = message.cseq().unwrap();
    assert_eq!((cseq.number, cseq.method), (9, Method::Invite));
    assert_eq!(message.via().unwrap().branch(), Some("390skdjuw"));
    let headers = message.headers();
    assert_eq!(
        headers.get("newfangledheader"),
        Some("newfangled value continued newfangled value")
    );
    let vias: Vec<_> = headers.get_all("Via").collect();
    let second = Via::parse(vias[1]).unwrap();
    assert_eq!(
        (second.branch(), second.sent_by.as_str()),
        (Some("z9hG4bK9ikj8"), "spindle.example.com")
    );
    assert!(
        second
            .to_string()
            .ends_with(", SIP  /    2.0   / UDP  192.168.255.111   ; branch= z9hG4bK30239")
    );
    let Message::Request(request) = message else {
        panic!("a request");
    };
    assert_eq!(request.uri, "sip:vivekg@chair-dnrc.example.com;unknownparam");
    assert_eq!(&request.body[..], b"v=0\n");
}

#[test]
fn addresses_are_read_in_every_form() {
    for (text, user, tag, expires) in [
        (
            "sip:34020000001320000001@3402000000;tag=1",
            "34020000001320000001",
            Some("1"),
            None,
        ),
        ("<sip:a@h;transport=udp>;expires=60", "a", None, Some(60)),
        (
            "\"<b>, c\" <SIP:a@h:5060>;expires=\"99999999999\";TAG=x",
            "a",
            Some("x"),
            Some(u32::MAX),
        ),
        ("a b <sips:a:secret@[2001:db8::1]:5061>;tag=", "a", None, None),
        ("<sip:a@h>;expires=x, <sip:b@h>;expires=3", "a", None, None),
        ("sip:h", "", None, None),
    ] {
        let address = NameAddr::parse(text).unwrap();
        assert_eq!(address.user().as_deref(), Some(user), "{text}");
        assert_eq!((address.tag(), address.expires()), (tag, expires), "{text}");
    }
    for text in ["", " ", "<>", "<sip:a@h", "tel:+1", "*", "<sip:a@>", "<sip:a@h h>"] {
        assert_eq!(NameAddr::parse(text).and_then(|a| a.user()), None, "{text}");
    }
    let uri = Uri::parse("sip:a@[2001:db8::1]:5061;lr?x=y").unwrap();
    assert_eq!((uri.host.as_str(), uri.port), ("2001:db8::1", Some(5061)));
    assert_eq!(uri.to_string(), "sip:a@[2001:db8::1]:5061");
}

#[test]
fn a_response_says_where_the_request_came_from() {
    let peer: SocketAddr = "198.51.100.7:40000".parse().unwrap();
    let via = |text: &str| {
        let mut via = Via::parse(text).unwrap();
        via.received_from(peer);
        via.to_string()
    };
    assert_eq!(
        via("SIP/2.0/UDP 10.0.0.1:5060;rport;branch=z9hG4bK1"),
        "SIP/2.0/UDP 10.0.0.1:5060;rport=40000;branch=z9hG4bK1;received=198.51.100.7"
    );
    assert_eq!(
        via("SIP/2.0/UDP 198.51.100.7;branch=b"),
        "SIP/2.0/UDP 198.51.100.7;branch=b"
    );
    assert_eq!(
        via("SIP/2.0/UDP host;branch=b"),
        "SIP/2.0/UDP host;branch=b;received=198.51.100.7"
    );
    let r = request(BENT).response(200, peer, "mine");
    assert_eq!(r.headers.get_all("Via").count(), 2);
    assert!(
        r.headers.get("To").unwrap().contains("1918181833n"),
        "a tag that is there stays"
    );
    let r = request("MESSAGE sip:a SIP/2.0\r\nVia: SIP/2.0/UDP h\r\nTo: <sip:a@h>\r\n\r\n").response(200, peer, "mine");
    assert_eq!(r.headers.get("To"), Some("<sip:a@h>;tag=mine"));
}

#[test]
fn a_datagram_ends_where_it_ends() {
    for length in [
        "Content-Length: 0\r\n",
        "Content-Length: 3\r\n",
        "Content-Length: 900\r\n",
        "Content-Length: x\r\n",
        "",
    ] {
        let r = request(&format!("MESSAGE sip:a SIP/2.0\r\n{length}\r\n<Notify/>"));
        assert_eq!(&r.body[..], b"<Notify/>", "{length}");
        assert!(r.headers.get("Content-Length").is_none());
    }
    assert_eq!(parse_datagram(b"\r\n\r\n"), Ok(None));
    assert_eq!(parse_datagram(b"\0\0\0\0"), Ok(None));
    // Without an empty line there is no body.
    assert_eq!(request("OPTIONS sip:a SIP/2.0\r\nTo: x").headers.get("To"), Some("x"));
}

#[test]
fn what_is_no_sip_is_refused() {
    for (text, fault) in [
        ("GET / HTTP/1.1\r\n\r\n", Fault::StartLine),
        ("REGISTER sip:a\r\n\r\n", Fault::StartLine),
        ("SIP/2.0 99 No\r\n\r\n", Fault::StartLine),
        ("SIP/2.0 700 No\r\n\r\n", Fault::StartLine),
        ("RE GISTER sip:a SIP/2.0\r\n\r\n", Fault::StartLine),
        ("REGISTER sip:\x01 SIP/2.0\r\n\r\n", Fault::StartLine),
        ("REGIS\x01TER sip:a SIP/2.0\r\n\r\n", Fault::StartLine),
    ] {
        assert_eq!(parse_datagram(text.as_bytes()), Err(fault), "{text}");
    }
    let long = format!("REGISTER sip:{} SIP/2.0\r\n\r\n", "a".repeat(2000));
    assert_eq!(parse_datagram(long.as_bytes()), Err(Fault::UriTooLong));
    let many = format!("REGISTER sip:a SIP/2.0\r\n{}\r\n", "a: b\r\n".repeat(65));
    assert_eq!(parse_datagram(many.as_bytes()), Err(Fault::TooManyHeaders));
    let large = format!("REGISTER sip:a SIP/2.0\r\na: {}\r\n\r\n", "b".repeat(17_000));
    assert_eq!(parse_datagram(large.as_bytes()), Err(Fault::HeadTooLarge));
}

#[test]
fn no_value_starts_a_header_of_its_own() {
    let r = Request::new(Method::Message, "sip:a b\r\nX: y").with("Subject", "x\r\nTo: evil");
    let text = String::from_utf8(r.to_bytes().to_vec()).unwrap();
    assert_eq!(
        text,
        "MESSAGE sip:a%20b%0D%0AX:%20y SIP/2.0\r\nSubject: x  To: evil\r\nContent-Length: 0\r\n\r\n"
    );
}

#[test]
fn control_characters_are_blanks() {
    let message = parse("SIP/2.0 200 O\0K\0\r\nSubject: \0a\x01b\0\r\n\r\n");
    assert_eq!(message.headers().get("Subject"), Some("a b"));
    assert_eq!(
        parse_datagram(&message.to_bytes()).unwrap().unwrap().to_bytes(),
        message.to_bytes()
    );
}

/// Messages of a connection, whole and at every split point.
#[test]
fn a_connection_is_read_however_it_is_cut() {
    let stream = "\r\n\r\nREGISTER sip:a SIP/2.0\r\nl: 0\r\n\r\n\r\nMESSAGE sip:a SIP/2.0\nContent-Length: 5\n\nabc\r\nSIP/2.0 200 OK\r\n\r\nBYE sip:a SIP/2.0\r\n\r\n";
    let read = |cut: usize| {
        let mut decoder = Decoder::new(BODY_BYTES_MAX);
        let mut input = BytesMut::new();
        let mut list = Vec::new();
        for part in [&stream[..cut], &stream[cut..]] {
            input.extend_from_slice(part.as_bytes());
            while let Some(message) = decoder.decode(&mut input).unwrap() {
                list.push(message);
            }
        }
        assert!(input.is_empty());
        list
    };
    let whole = read(stream.len());
    assert_eq!(whole.len(), 4);
    assert!(matches!(&whole[1], Message::Request(r) if &r.body[..] == b"abc\r\n"));
    for cut in 0..stream.len() {
        assert_eq!(read(cut), whole, "cut at {cut}");
    }
}

#[test]
fn a_connection_ends_at_the_first_nonsense() {
    for (text, fault) in [
        ("\x16\x03\x01", Fault::StartLine),
        (
            "OPTIONS sip:a SIP/2.0\r\nContent-Length: -1\r\n\r\n",
            Fault::ContentLength,
        ),
        ("OPTIONS sip:a SIP/2.0\r\nl: 1\r\nl: 2\r\n\r\n", Fault::ContentLength),
        ("OPTIONS sip:a SIP/2.0\r\nl: 101\r\n\r\n", Fault::BodyTooLarge),
        (
            "OPTIONS sip:a SIP/2.0\r\nl: 99999999999999999999999\r\n\r\n",
            Fault::BodyTooLarge,
        ),
    ] {
        let mut decoder = Decoder::new(100);
        let error = decoder.decode(&mut BytesMut::from(text)).unwrap_err();
        assert_eq!((error.fault, error.position), (fault, 0), "{text}");
    }
    let mut decoder = Decoder::new(100);
    let mut input = BytesMut::from(&vec![b'a'; HEAD_BYTES_MAX + 1][..]);
    assert_eq!(decoder.decode(&mut input).unwrap_err().fault, Fault::HeadTooLarge);
}

fn outgoing(method: Method, id: TransactionId) -> Request {
    let cseq = format!("7 {method}");
    Request::new(method, "sip:cam@192.0.2.20")
        .with("Via", format!("SIP/2.0/UDP 192.0.2.1;rport;branch={id}"))
        .with("From", "<sip:me@d>;tag=1")
        .with("To", "<sip:cam@d>")
        .with("Call-ID", "c")
        .with("CSeq", cseq)
}

/// The response of the other end to one of ours.
fn answered(request: &Request, status: u16) -> Response {
    request.response(status, ([192, 0, 2, 20], 5060).into(), "theirs")
}

type Table = ClientTransactions<&'static str, u32>;

/// The seconds at which requests are sent again, and when it is given up.
fn schedule(method: Method, reliable: bool) -> (Vec<f64>, f64) {
    let start = Instant::now();
    let mut table = Table::new();
    let id = TransactionId::new(5);
    table
        .start(start, id, &outgoing(method, id), "way", reliable, 1)
        .unwrap();
    let mut times = Vec::new();
    loop {
        let now = table.poll_timeout().unwrap();
        let at = (now - start).as_secs_f64();
        match table.poll_due(now) {
            Some(Due::Resend("way", _)) => times.push(at),
            Some(Due::TimedOut(1)) => return (times, at),
            other => panic!("{other:?}"),
        }
    }
}

/// RFC 3261 sections 17.1.1.2 and 17.1.2.2.
#[test]
fn requests_are_sent_again_as_the_rfc_says() {
    assert_eq!(
        schedule(Method::Invite, false),
        (vec![0.5, 1.5, 3.5, 7.5, 15.5, 31.5], 32.0)
    );
    let others = vec![0.5, 1.5, 3.5, 7.5, 11.5, 15.5, 19.5, 23.5, 27.5, 31.5];
    assert_eq!(schedule(Method::Message, false), (others, 32.0));
    assert_eq!(schedule(Method::Message, true), (vec![], 32.0));
}

#[test]
fn an_answer_ends_it_and_a_refused_invite_is_acknowledged_as_often_as_refused() {
    let now = Instant::now();
    let mut table = Table::new();
    let id = TransactionId::new(u64::MAX);
    let invite = outgoing(Method::Invite, id);
    table.start(now, id, &invite, "way", false, 9).unwrap();
    let no = answered(&invite, 486);
    assert_eq!(TransactionId::of_response(&no.headers), Some(id));
    let trying = answered(&invite, 100);
    assert_eq!(table.on_response(now, id, &trying), Outcome::Provisional(9));
    // A provisional answer ends the repetitions.
    assert_eq!(table.poll_due(now + Duration::from_secs(60)), None);
    let Outcome::Final(9, Some(("way", ack))) = table.on_response(now, id, &no) else {
        panic!("a refusal");
    };
    let text = String::from_utf8(ack.to_vec()).unwrap();
    assert!(text.starts_with(
        "ACK sip:cam@192.0.2.20 SIP/2.0\r\nVia: SIP/2.0/UDP 192.0.2.1;rport;branch=z9hG4bKffffffffffffffff\r\n"
    ));
    assert!(text.contains("\r\nCSeq: 7 ACK\r\n") && text.contains("\r\nTo: <sip:cam@d>;tag=theirs\r\n"));
    assert_eq!(table.on_response(now, id, &no), Outcome::Again(Some(("way", ack))));
    assert_eq!(
        table.on_response(now, id, &answered(&invite, 200)),
        Outcome::Again(None)
    );
    assert_eq!(table.poll_due(now + Duration::from_secs(33)), None);
    assert!(table.is_empty());
    assert_eq!(table.on_response(now, id, &no), Outcome::Unknown);

    let id = TransactionId::new(6);
    let invite = outgoing(Method::Invite, id);
    table.start(now, id, &invite, "way", false, 10).unwrap();
    let stop = cancel(&invite);
    assert_eq!(stop.headers.get("CSeq"), Some("7 CANCEL"));
    table.start(now, id.of_cancel(), &stop, "way", false, 11).unwrap();
    let done = answered(&stop, 200);
    let which = TransactionId::of_response(&done.headers).unwrap();
    assert_eq!(table.on_response(now, which, &done), Outcome::Final(11, None));
    assert_eq!(
        table.on_response(now, id, &answered(&invite, 200)),
        Outcome::Final(10, None)
    );
    assert!(table.is_empty() && table.poll_timeout().is_none());
}

#[test]
fn the_tables_of_transactions_are_bounded() {
    let now = Instant::now();
    let mut table = Table::new();
    for n in 0..=TRANSACTIONS_MAX as u64 {
        let id = TransactionId::new(n);
        let started = table.start(now, id, &outgoing(Method::Message, id), "way", n % 2 == 0, 1);
        assert_eq!(started.is_ok(), n < TRANSACTIONS_MAX as u64);
    }
    assert_eq!(table.fail(|_| true).len(), TRANSACTIONS_MAX);
    assert!(table.poll_timeout().is_none());

    let mut responses = Responses::new();
    for n in 0..20_000 {
        responses.put(now, n, Bytes::from_static(b"x"));
    }
    let kept = (0..20_000).filter(|n| responses.get(now, *n).is_some()).count();
    assert_eq!(kept, RESPONSES_MAX);
    assert!(responses.get(now + Duration::from_secs(33), 19_999).is_none());
}

#[test]
fn requests_that_differ_in_anything_have_keys_of_their_own() {
    let responses = Responses::new();
    let base = outgoing(Method::Message, TransactionId::new(1)).with_body("a/b", "x");
    let ip = [192, 0, 2, 20].into();
    let key = responses.key(&base, ip);
    assert_eq!(key, responses.key(&base.clone(), ip));
    // Devices exist that give every keepalive the same branch.
    assert_ne!(key, responses.key(&base.clone().with_body("a/b", "y"), ip));
    assert_ne!(key, responses.key(&base, [192, 0, 2, 21].into()));
    assert_ne!(
        key,
        responses.key(
            &outgoing(Method::Message, TransactionId::new(2)).with_body("a/b", "x"),
            ip
        )
    );
}

#[test]
fn a_dialog_follows_its_route_and_a_sane_contact() {
    let id = TransactionId::new(1);
    let invite = outgoing(Method::Invite, id);
    let dialog = |contact: &str| {
        let ok = answered(&invite, 200)
            .with("Contact", contact.to_owned())
            .with("Record-Route", "<sip:p1;lr>")
            .with("Record-Route", "<sip:p2;lr>");
        Dialog::new(&invite, &ok)
    };
    let mut sane = dialog("<sip:cam@10.0.0.9:5060>");
    let bye = sane.request(Method::Bye);
    assert_eq!(bye.uri, "sip:cam@10.0.0.9:5060");
    assert_eq!(
        bye.headers.get_all("Route").collect::<Vec<_>>(),
        ["<sip:p2;lr>", "<sip:p1;lr>"]
    );
    assert_eq!(
        (bye.headers.get("CSeq"), sane.ack().headers.get("CSeq")),
        (Some("8 BYE"), Some("7 ACK"))
    );
    for contact in ["", "*", "<http://x>", &format!("<sip:{}@h>", "a".repeat(2000))] {
        assert_eq!(dialog(contact).ack().uri, "sip:cam@192.0.2.20", "{contact}");
    }
    let theirs = |from: &str, to: &str| {
        let r = Request::new(Method::Bye, "sip:me")
            .with("From", from)
            .with("To", to)
            .with("Call-ID", "c");
        sane.covers(&r.headers)
    };
    assert!(theirs("<sip:cam@d>;tag=theirs", "<sip:me@d>;tag=1"));
    assert!(theirs("<sip:cam@d>", "<sip:me@d>"), "tags that are left out");
    assert!(!theirs("<sip:cam@d>;tag=other", "<sip:me@d>;tag=1"));
    assert!(!theirs("<sip:cam@d>;tag=theirs", "<sip:me@d>;tag=2"));
    assert_eq!(response("SIP/2.0 200\r\n\r\n").reason, "");
}

proptest! {
    #[test]
    fn messages_never_panic(text in "(INVITE sip:a SIP/2.0|SIP/2.0 200 OK)\r\n([vftmilcs]: ?[\"<>;:,=@a-z0-9 \\\\]{0,30}\r\n){0,8}\r\n[a-z]{0,9}") {
        fuzzing::message(text.as_bytes());
        fuzzing::stream(text.as_bytes());
    }

    #[test]
    fn streams_never_panic(data in proptest::collection::vec(prop_oneof![Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':'), Just(b'l'), any::<u8>()], 0..200)) {
        fuzzing::message(&data);
        fuzzing::stream(&data);
    }
}
