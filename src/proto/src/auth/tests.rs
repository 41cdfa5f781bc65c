//! The examples of the RFCs, cameras' challenges, and both sides against each other.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::*;

const PEER: IpAddr = IpAddr::V4(Ipv4Addr::new(192, 0, 2, 7));
const URI: &str = "rtsp://h/cam?start=x";

fn challenges(values: &[&str]) -> Vec<Challenge> {
    parse_challenges(values.iter().copied())
}

fn schemes(values: &[&str]) -> Vec<Option<Scheme>> {
    challenges(values).iter().map(Challenge::scheme).collect()
}

fn client(password: &str) -> Authenticator {
    Authenticator::new(Some(Credentials::new("admin", password)), [9; 16])
}

fn verifier(now: Instant, basic: bool) -> Verifier {
    Verifier::new("corenvr", [5; 32], now, basic, |name| match name {
        "admin" => Some(Secret::Password("s3cret".into())),
        "hashed" => Some(Secret::Ha1 {
            md5: None,
            sha256: Some(ha1(true, "hashed", "corenvr", "s3cret")),
        }),
        _ => None,
    })
}

/// RFC 7616 section 3.9.1 and RFC 2617 section 3.5.
#[test]
fn the_examples_of_the_rfcs() {
    let input = DigestInput {
        nonce: "7ypf/xlj9XXwfDPEoM4URrv/xwf94BcCAzFZH4GiTo0v",
        uri: "/dir/index.html",
        qop: "auth",
        nc: "00000001",
        cnonce: "f2/wE4q74E6zIJEtWaHKaf5wv/H5QzzpXusqGemxURZJ",
    };
    for (name, expected) in [
        ("MD5", "8ca523f5e9506fed4657c9700eebdbec"),
        (
            "SHA-256",
            "753927fa0e85d155564e2e272a28d1802ca10daf4496794697cf8db5856cb6c1",
        ),
    ] {
        let algorithm = Algorithm::parse(name).unwrap();
        let ha1 = algorithm.hash(&["Mufasa", "http-auth@example.org", "Circle of Life"]);
        assert_eq!(algorithm.response(&ha1, "GET", &input), expected, "{name}");
    }
    let old = DigestInput {
        nonce: "dcd98b7102dd2f0e8b11d0f600bfb0c093",
        uri: "/dir/index.html",
        qop: "",
        nc: "",
        cnonce: "",
    };
    let ha1 = ha1(false, "Mufasa", "testrealm@host.com", "Circle Of Life");
    assert_eq!(ha1, "939e7578ed9e3c518a452acee763bce9");
    let md5 = Algorithm::parse("").unwrap();
    assert_eq!(md5.response(&ha1, "GET", &old), "670fd8c2df070c60b045671b8b24ff02");
}

#[test]
fn challenges_in_one_header_or_in_several() {
    use Scheme::{Basic, DigestMd5, DigestSha256};
    assert_eq!(
        schemes(&["Digest realm=\"a, b\", nonce=\"n\", algorithm=SHA-256, Basic realm=\"c\",Digest nonce=n , realm=d"]),
        [Some(DigestSha256), Some(Basic), Some(DigestMd5)]
    );
    assert_eq!(
        schemes(&["Basic realm=\"x\"", "digest REALM = \"y\" , NONCE= \"z\""]),
        [Some(Basic), Some(DigestMd5)]
    );
    assert_eq!(
        schemes(&["Negotiate", "Digest nonce=n, algorithm=SHA-512-256, qop=\"auth-int\""]),
        [None, None]
    );
    assert_eq!(schemes(&["Digest nonce=n, qop=\"auth-int\""]), [None]);
    // Longse: neither algorithm nor qop, a short nonce.
    let list = challenges(&["Digest realm=\"Surveillance Server\", nonce=\"98481030\""]);
    let Challenge::Digest(d) = &list[0] else {
        panic!("{list:?}")
    };
    assert_eq!(
        (d.realm.as_str(), d.nonce.as_str(), d.qop_auth, d.stale),
        ("Surveillance Server", "98481030", false, false)
    );
    for nonsense in [
        "",
        ",,,",
        "=",
        "\"",
        "a=b",
        "Digest realm=\"unclosed",
        "Digest \"x\"=1, =, ,",
    ] {
        let _ = challenges(&[nonsense]);
    }
    assert!(challenges(&[&"Basic,".repeat(10_000)]).len() <= 64);
}

#[test]
fn the_strongest_scheme_is_answered() {
    let all = "Basic realm=\"r\", Digest realm=\"r\", nonce=\"n\", Digest realm=\"r\", nonce=\"n\", algorithm=SHA-256";
    let mut c = client("p");
    assert_eq!(c.authorize("PLAY", URI), None);
    c.challenged(challenges(&[all])).unwrap();
    assert_eq!(c.scheme(), Some(Scheme::DigestSha256));
    let mut c = client("p");
    c.challenged(challenges(&["Basic realm=\"r\""])).unwrap();
    assert_eq!(c.authorize("PLAY", URI).unwrap(), "Basic YWRtaW46cA==");
}

#[test]
fn opaque_comes_back_and_counts_rise() {
    let mut c = client("p");
    c.challenged(challenges(&[
        "Digest realm=\"r\", nonce=\"n\", qop=\"auth-int,auth\", opaque=\"o\\\"p\", algorithm=\"MD5\"",
    ]))
    .unwrap();
    let first = c.authorize("DESCRIBE", URI).unwrap();
    let second = c.authorize("SETUP", URI).unwrap();
    assert!(
        first.contains("opaque=\"o\\\"p\"") && first.contains("algorithm=MD5"),
        "{first}"
    );
    assert!(first.contains("nc=00000001") && second.contains("nc=00000002"));
    // The old form has neither, and no algorithm that was not named.
    let mut c = client("p");
    c.challenged(challenges(&["Digest realm=\"r\", nonce=\"n\""])).unwrap();
    let old = c.authorize("DESCRIBE", URI).unwrap();
    for word in ["nc=", "qop", "cnonce", "algorithm", "opaque"] {
        assert!(!old.contains(word), "{old}");
    }
}

#[test]
fn a_second_refusal_is_final_unless_the_nonce_is_at_fault() {
    let fresh = |n: &str| challenges(&[&format!("Digest realm=\"r\", nonce=\"{n}\"")]);
    let stale = challenges(&["Digest realm=\"r\", nonce=\"s\", stale=TRUE"]);
    let mut c = client("wrong");
    c.challenged(fresh("1")).unwrap();
    c.authorize("DESCRIBE", URI);
    assert_eq!(c.challenged(fresh("2")), Err(Refusal::Wrong(Scheme::DigestMd5)));

    let mut c = client("right");
    c.challenged(fresh("1")).unwrap();
    c.authorize("DESCRIBE", URI);
    c.challenged(stale).unwrap();
    c.authorize("DESCRIBE", URI);
    c.accepted();
    // A camera that takes each nonce once and does not say `stale`.
    c.authorize("SETUP", URI);
    c.challenged(fresh("3")).unwrap();
    c.authorize("SETUP", URI);
    assert_eq!(c.challenged(fresh("4")), Err(Refusal::Wrong(Scheme::DigestMd5)));

    assert_eq!(
        Authenticator::new(None, [0; 16]).challenged(fresh("1")),
        Err(Refusal::NoCredentials)
    );
    let unknown = client("p").challenged(challenges(&["NTLM"]));
    assert_eq!(unknown, Err(Refusal::Unsupported("NTLM".into())));
}

/// What the server says to the client's answer to one of its challenges.
fn answer(
    v: &Verifier,
    now: Instant,
    login: &mut ConnectionLogin,
    who: &mut Authenticator,
    method: &str,
    uri: &str,
) -> Verdict {
    let header = who.authorize(method, uri);
    v.verify(now, PEER, login, method, uri, header.as_deref())
}

#[test]
fn client_and_server_agree_on_every_scheme() {
    let now = Instant::now();
    let v = verifier(now, true);
    let offered = v.challenges(now, PEER, false);
    assert_eq!(
        schemes(&offered.iter().map(String::as_str).collect::<Vec<_>>()),
        [Some(Scheme::DigestSha256), Some(Scheme::DigestMd5), Some(Scheme::Basic)]
    );
    for one in &offered {
        let mut login = ConnectionLogin::default();
        let mut right = client("s3cret");
        right.challenged(challenges(&[one])).unwrap();
        for method in ["DESCRIBE", "SETUP", "PLAY"] {
            assert_eq!(
                answer(&v, now, &mut login, &mut right, method, URI),
                Verdict::User("admin".into()),
                "{one}"
            );
        }
        let mut wrong = client("s3cre");
        wrong.challenged(challenges(&[one])).unwrap();
        assert_eq!(
            answer(&v, now, &mut login, &mut wrong, "DESCRIBE", URI),
            Verdict::Refused,
            "{one}"
        );
    }
    assert_eq!(
        v.verify(now, PEER, &mut ConnectionLogin::default(), "PLAY", URI, None),
        Verdict::Absent
    );
    // Basic is refused where it is not offered.
    let basic = Some("Basic YWRtaW46czNjcmV0");
    let mut login = ConnectionLogin::default();
    assert_eq!(
        v.verify(now, PEER, &mut login, "PLAY", URI, basic),
        Verdict::User("admin".into())
    );
    assert_eq!(
        verifier(now, false).verify(now, PEER, &mut login, "PLAY", URI, basic),
        Verdict::Refused
    );
}

#[test]
fn a_user_with_hashes_and_one_who_is_unknown() {
    let now = Instant::now();
    let v = verifier(now, true);
    let offered = v.challenges(now, PEER, false);
    let mut login = ConnectionLogin::default();
    for (name, scheme, expected) in [
        ("hashed", 0, Verdict::User("hashed".into())),
        ("hashed", 1, Verdict::Refused),
        ("hashed", 2, Verdict::User("hashed".into())),
        ("nobody", 0, Verdict::Refused),
        ("nobody", 2, Verdict::Refused),
    ] {
        let mut c = Authenticator::new(Some(Credentials::new(name, "s3cret")), [1; 16]);
        c.challenged(challenges(&[&offered[scheme]])).unwrap();
        assert_eq!(
            answer(&v, now, &mut login, &mut c, "PLAY", URI),
            expected,
            "{name} {scheme}"
        );
    }
}

#[test]
fn a_nonce_expires_belongs_to_one_address_and_counts_up() {
    let now = Instant::now();
    let later = now + verifier::NONCE_LIFETIME + Duration::from_secs(1);
    let v = verifier(now, false);
    let offered = v.challenges(now, PEER, false);
    let sha = &challenges(&[&offered[0]]);
    let mut c = client("s3cret");
    c.challenged(sha.clone()).unwrap();
    // Proved in time, the nonce stays good on this connection: players do not expect 401 in the middle of a session.
    let mut login = ConnectionLogin::default();
    let header = c.authorize("PLAY", URI);
    let verify = |login: &mut ConnectionLogin, at, peer, header: &Option<String>| {
        v.verify(at, peer, login, "PLAY", URI, header.as_deref())
    };
    assert_eq!(verify(&mut login, now, PEER, &header), Verdict::User("admin".into()));
    assert_eq!(verify(&mut login, now, PEER, &header), Verdict::Stale, "a replay");
    let header = c.authorize("PLAY", URI);
    assert_eq!(verify(&mut login, later, PEER, &header), Verdict::User("admin".into()));
    // Elsewhere it is too old, or not ours.
    let mut other = ConnectionLogin::default();
    assert_eq!(verify(&mut other, later, PEER, &header), Verdict::Stale);
    assert_eq!(verify(&mut other, now, [192, 0, 2, 8].into(), &header), Verdict::Stale);
    let stranger = Verifier::new("corenvr", [6; 32], now, false, |_| {
        Some(Secret::Password("s3cret".into()))
    });
    assert_eq!(
        stranger.verify(now, PEER, &mut other, "PLAY", URI, header.as_deref()),
        Verdict::Stale
    );
    // Another method or another URI is another digest.
    assert_eq!(
        v.verify(now, PEER, &mut other, "PAUSE", URI, header.as_deref()),
        Verdict::Refused
    );
    assert_eq!(
        v.verify(now, PEER, &mut other, "PLAY", "rtsp://h/other", header.as_deref()),
        Verdict::Refused
    );
    assert!(v.challenges(now, PEER, true)[0].contains("stale=true"));
}

/// VLC hashes the stream's URL in the SETUP of a track; others drop a slash or send the path alone.
#[test]
fn players_hash_a_uri_of_their_own() {
    let now = Instant::now();
    let v = verifier(now, false);
    for (asked, hashed, good) in [
        ("rtsp://h/cam/track1", "rtsp://h/cam", true),
        ("rtsp://h/cam/track1?start=x", "rtsp://h/cam?start=x", true),
        ("rtsp://h/cam?start=x/track1", "rtsp://h/cam?start=x", true),
        ("rtsp://h/cam/", "rtsp://h/cam", true),
        ("rtsp://h/cam", "rtsp://h/cam/", true),
        ("rtsp://h:8554/cam", "/cam", true),
        ("*", "*", true),
        ("rtsp://h/cam2", "rtsp://h/cam", false),
        ("rtsp://h/cam", "rtsp://h/", false),
        ("rtsp://h/cam", "*", false),
    ] {
        let mut c = client("s3cret");
        c.challenged(challenges(&[&v.challenges(now, PEER, false)[1]])).unwrap();
        let header = c.authorize("SETUP", hashed).unwrap();
        let verdict = v.verify(
            now,
            PEER,
            &mut ConnectionLogin::default(),
            "SETUP",
            asked,
            Some(&header),
        );
        assert_eq!(
            verdict == Verdict::User("admin".into()),
            good,
            "{asked} by {hashed}: {verdict:?}"
        );
    }
}

#[test]
fn malformed_answers_are_refused() {
    let now = Instant::now();
    let v = verifier(now, true);
    let mut login = ConnectionLogin::default();
    for header in [
        "",
        "Basic",
        "Basic !!!",
        "Basic YWRtaW4=",
        "Digest",
        "Digest username=\"admin\"",
        "Digest username=\"admin\", realm=\"corenvr\", nonce=\"\", uri=\"x\", response=\"\"",
        "Digest username=\"admin\", realm=\"corenvr\", nonce=\"é\", uri=\"x\", response=\"0\"",
        "Bearer abc",
    ] {
        assert_eq!(
            v.verify(now, PEER, &mut login, "PLAY", URI, Some(header)),
            Verdict::Refused,
            "{header}"
        );
    }
}

#[test]
fn nothing_shows_a_password() {
    let c = client("hunter2");
    let v = verifier(Instant::now(), true);
    for text in [
        format!("{c:?}"),
        format!("{v:?}"),
        format!("{:?}", Secret::Password("hunter2".into())),
    ] {
        assert!(!text.contains("hunter2") && !text.contains("s3cret"), "{text}");
    }
}

proptest! {
    #[test]
    fn arbitrary_headers(text in "(Digest |Basic )?[ -~é]{0,120}") {
        crate::rtsp::fuzzing::auth_header(text.as_bytes());
    }

    #[test]
    fn any_credentials_pass_from_client_to_server(user in "[ -9;-~é]{1,20}", password in ".{0,20}", scheme in 0..3usize) {
        let now = Instant::now();
        let secret = password.clone();
        let v = Verifier::new("a \"realm\"", [5; 32], now, true, move |_| Some(Secret::Password(secret.clone())));
        let mut c = Authenticator::new(Some(Credentials::new(user.clone(), password)), [9; 16]);
        c.challenged(challenges(&[&v.challenges(now, PEER, false)[scheme]])).unwrap();
        let verdict = answer(&v, now, &mut ConnectionLogin::default(), &mut c, "PLAY", URI);
        prop_assert_eq!(verdict, Verdict::User(user));
    }
}

/// A throttle as a guard, and what it was told.
#[derive(Default)]
struct Doorkeeper {
    throttle: std::sync::Mutex<Throttle>,
    told: std::sync::Mutex<Vec<String>>,
}

impl Guard for Doorkeeper {
    fn wait(&self, now: Instant, origin: Origin, account: &str) -> Option<Duration> {
        self.throttle.lock().unwrap().wait(now, origin.peer, account)
    }
    fn refused(&self, now: Instant, origin: Origin, account: &str) {
        self.throttle.lock().unwrap().refused(now, origin.peer, account);
        self.told.lock().unwrap().push(format!("refused {account}"));
    }
    fn proved(&self, now: Instant, origin: Origin, account: &str) {
        self.throttle.lock().unwrap().proved(now, origin.peer, account);
        self.told.lock().unwrap().push(format!("proved {account}"));
    }
}

#[test]
fn who_guesses_has_to_wait_and_who_is_in_has_not() {
    let now = Instant::now();
    let guard = std::sync::Arc::new(Doorkeeper::default());
    let v = verifier(now, false).guarded(guard.clone());
    let offered = v.challenges(now, PEER, false);
    let (mut inside, mut right) = (ConnectionLogin::default(), client("s3cret"));
    right.challenged(challenges(&[&offered[0]])).unwrap();
    for _ in 0..3 {
        let verdict = answer(&v, now, &mut inside, &mut right, "PLAY", URI);
        assert_eq!(verdict, Verdict::User("admin".into()));
    }
    // Asking without an answer, or with a nonce that is too old, is no guess.
    let mut outside = ConnectionLogin::default();
    let late = now + verifier::NONCE_LIFETIME + Duration::from_secs(1);
    for _ in 0..20 {
        assert_eq!(v.verify(now, PEER, &mut outside, "PLAY", URI, None), Verdict::Absent);
        let mut fresh = ConnectionLogin::default();
        assert_eq!(answer(&v, late, &mut fresh, &mut right, "PLAY", URI), Verdict::Stale);
    }
    // The same wrong answer again is one guess.
    let mut wrong = client("wrong");
    wrong.challenged(challenges(&[&offered[1]])).unwrap();
    let header = wrong.authorize("PLAY", URI);
    for _ in 0..20 {
        let verdict = v.verify(now, PEER, &mut outside, "PLAY", URI, header.as_deref());
        assert_eq!(verdict, Verdict::Refused);
    }
    assert_eq!(*guard.told.lock().unwrap(), ["proved admin", "refused admin"]);
    for n in 1..throttle::PAIR_FREE {
        let mut wrong = client(&format!("wrong{n}"));
        wrong.challenged(challenges(&[&offered[0]])).unwrap();
        let verdict = answer(&v, now, &mut outside, &mut wrong, "PLAY", URI);
        assert_eq!(verdict, Verdict::Refused);
    }
    // Now even the right password waits, on this connection and on another; whoever is in stays in.
    let throttled = Verdict::Throttled(throttle::DELAY_MIN);
    assert_eq!(answer(&v, now, &mut outside, &mut right, "PLAY", URI), throttled);
    assert_eq!(
        answer(&v, now, &mut ConnectionLogin::default(), &mut right, "PLAY", URI),
        throttled
    );
    let verdict = answer(&v, now, &mut inside, &mut right, "PLAY", URI);
    assert_eq!(verdict, Verdict::User("admin".into()));
    let later = now + throttle::DELAY_MIN;
    let verdict = answer(&v, later, &mut outside, &mut right, "PLAY", URI);
    assert_eq!(verdict, Verdict::User("admin".into()));
}
