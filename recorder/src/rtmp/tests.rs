//! Who is waited for, and who was refused.

use std::time::Instant;

use super::*;

fn name(text: &str) -> CameraName {
    CameraName::new(text).unwrap()
}

fn request(app: &str, key: &str) -> PublishRequest {
    PublishRequest {
        app: app.into(),
        key: key.into(),
        query: String::new(),
    }
}

#[test]
fn a_key_belongs_to_one_camera_for_as_long_as_that_waits() {
    let publishers = Publishers::new();
    let key = StreamKey::new("gate-5f3a9c").unwrap();
    let registration = publishers.register(&key, &name("gate")).unwrap();
    assert!(publishers.expected("gate-5f3a9c").is_some());
    assert!(publishers.expected("gate-5f3a9d").is_none() && publishers.expected("").is_none());
    assert_eq!(publishers.register(&key, &name("yard")).err(), Some(name("gate")));
    drop(registration);
    assert!(publishers.expected("gate-5f3a9c").is_none());
    assert!(publishers.register(&key, &name("yard")).is_ok());
}

#[test]
fn the_table_of_refused_publishers_counts_hides_keys_and_is_bounded() {
    let publishers = Publishers::new();
    let from = |last: u8| SocketAddr::from(([192, 0, 2, last], 4000));
    for port in 0..3 {
        let mut address = from(1);
        address.set_port(5000 + port);
        publishers.note_refused(address, &request("live\n", "secret-key-1"), "because");
    }
    publishers.note_refused(from(1), &request("live", "secret-key-1"), "for another reason");
    let list = publishers.refused();
    assert_eq!(list.len(), 2);
    let first = list.iter().find(|r| r.reason == "because").unwrap();
    assert_eq!(
        (first.count, first.app.as_str(), first.key.as_str()),
        (3, "live", "se*** (12 characters)")
    );
    for last in 0..REFUSED_MAX as u8 {
        publishers.note_refused(from(last), &request(&"x".repeat(500), "k"), "because");
    }
    let list = publishers.refused();
    assert_eq!(list.len(), REFUSED_MAX);
    assert!(list.iter().all(|r| r.app.len() == APP_MAX), "the oldest are gone");
    assert!(list.windows(2).all(|w| w[0].last >= w[1].last));
    assert!(!format!("{list:?}").contains("secret-key-1"));
}

#[test]
fn publishers_wait_in_a_short_line_and_come_back_when_it_is_full() {
    let publishers = Publishers::new();
    let key = StreamKey::new("gate-5f3a9c").unwrap();
    let registration = publishers.register(&key, &name("gate")).unwrap();
    let arrivals = publishers.expected("gate-5f3a9c").unwrap();
    let publisher = |number: u16| {
        let (here, _there) = std::os::unix::net::UnixStream::pair().unwrap();
        Publisher {
            stream: std::os::fd::OwnedFd::from(here).into(),
            server: Box::new(Server::new(Instant::now(), [1; 32])),
            input: BytesMut::new(),
            address: SocketAddr::from(([192, 0, 2, 1], number)),
            request: request("live", "gate-5f3a9c"),
        }
    };
    for number in 0..ARRIVALS_MAX as u16 {
        assert!(hand_over(&arrivals, publisher(number)).is_ok());
    }
    let back = hand_over(&arrivals, publisher(99)).err().unwrap();
    assert_eq!(back.address.port(), 99);
    let mut cx = Context::from_waker(std::task::Waker::noop());
    let mut next = || match registration.poll_arrival(&mut cx) {
        Poll::Ready(publisher) => Some(publisher),
        Poll::Pending => None,
    };
    let first = next().unwrap();
    assert_eq!(first.address.port(), 0);
    registration.put_back(first);
    let order: Vec<_> = std::iter::from_fn(next).map(|p| p.address.port()).collect();
    assert_eq!(order, [0, 1, 2, 3]);
}

#[test]
fn waiting_is_told_with_what_to_set_and_why_it_ended_before() {
    let publishers = Publishers::new();
    *lock(&publishers.0.listening) = vec![SocketAddr::from(([0, 0, 0, 0], 1936))];
    let key = StreamKey::new("gate-5f3a9c").unwrap();
    let registration = publishers.register(&key, &name("gate")).unwrap();
    let text = registration.waiting_for(Some("the publisher closed the connection"));
    assert!(
        text.contains(":1936/live/") && text.ends_with("the publisher closed the connection"),
        "{text}"
    );
    assert!(!registration.waiting_for(None).contains("5f3a9c"));
}
