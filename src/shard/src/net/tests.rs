//! Sockets over the loopback interface.

use super::*;
use crate::{Class, run_control, spawn};

#[test]
fn a_stream_carries_a_megabyte_each_way_while_both_sides_write() {
    run_control(async {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = listener.local_addr();
        let echo = spawn(Class::Live, "echo", async move {
            let mut stream = listener.accept().await.unwrap();
            let mut buffer = BytesMut::new();
            while stream.read_into(&mut buffer).await.unwrap() > 0 {
                stream.write_all(&buffer.split()).await.unwrap();
            }
        });
        let stream = Stream::connect(address, Duration::from_secs(5)).await.unwrap();
        let mut reader = stream.clone();
        let received = spawn(Class::Live, "reader", async move {
            let mut buffer = BytesMut::new();
            while reader.read_into(&mut buffer).await.unwrap() > 0 {}
            buffer
        });
        let sent: Vec<u8> = (0..1u32 << 20).map(|i| (i * 7 / 3) as u8).collect();
        stream.write_all(&sent).await.unwrap();
        stream.shutdown_write().unwrap();
        assert!(received.await.unwrap() == sent);
        echo.await.unwrap();
    })
    .unwrap();
}

#[test]
fn a_refused_connection_says_so() {
    run_control(async {
        let error = Stream::connect("127.0.0.1:1".parse().unwrap(), Duration::from_secs(5))
            .await
            .err()
            .unwrap();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
    })
    .unwrap();
}

#[test]
fn datagrams_arrive_whole_with_their_source() {
    run_control(async {
        let mut here = UdpSocket::bind("[::]:0".parse().unwrap(), 1 << 20).unwrap();
        let there = UdpSocket::bind("127.0.0.1:0".parse().unwrap(), 1 << 16).unwrap();
        let to = SocketAddr::from(([127, 0, 0, 1], here.local_addr().port()));
        for i in 0..40u8 {
            there
                .sender()
                .send_to(&vec![i; 100 + usize::from(i)], to)
                .await
                .unwrap();
        }
        there.sender().send_to(&[0; DATAGRAM_LEN_MAX + 1], to).await.unwrap();
        there.sender().send_to(b"last", to).await.unwrap();
        let mut all = Vec::new();
        while all.last().is_none_or(|(_, b): &(SocketAddr, Bytes)| b != "last") {
            here.recv_batch(&mut all).await.unwrap();
        }
        assert_eq!(all.len(), 41);
        assert!(
            all[..40]
                .iter()
                .enumerate()
                .all(|(i, (from, b))| *from == there.local_addr() && b.len() == 100 + i && b[0] == i as u8)
        );
        assert_eq!(here.truncated(), 1);
        here.sender().send_to(b"back", there.local_addr()).await.unwrap();
    })
    .unwrap();
}

#[test]
fn names_are_resolved_off_the_shard() {
    run_control(async {
        assert_eq!(
            resolve("127.0.0.1", 554).await.unwrap(),
            vec!["127.0.0.1:554".parse().unwrap()]
        );
        assert_eq!(resolve("[::1]", 554).await.unwrap(), vec!["[::1]:554".parse().unwrap()]);
        assert!(
            resolve("localhost", 554)
                .await
                .unwrap()
                .iter()
                .all(|a| a.ip().is_loopback())
        );
        assert!(resolve("no-such-host.invalid", 554).await.is_err());
    })
    .unwrap();
}

#[test]
fn a_connection_goes_on_on_another_executor() {
    let (tx, mut rx) = crate::channel::bounded::<DetachedStream>(1);
    let server = std::thread::spawn(move || {
        run_control(async move {
            let mut stream = rx.recv().await.unwrap().attach().unwrap();
            let mut buffer = BytesMut::new();
            while buffer.len() < 6 {
                stream.read_into(&mut buffer).await.unwrap();
            }
            stream.write_all(&buffer).await.unwrap();
            stream.peer_addr()
        })
        .unwrap()
    });
    let client = run_control(async move {
        let listener = Listener::tcp("127.0.0.1:0".parse().unwrap()).unwrap();
        let mut client = Stream::connect(listener.local_addr(), Duration::from_secs(5))
            .await
            .unwrap();
        let mut accepted = listener.accept().await.unwrap();
        client.write_all(b"one").await.unwrap();
        let mut buffer = BytesMut::new();
        accepted.read_into(&mut buffer).await.unwrap();
        assert_eq!(buffer, "one");
        // With a clone about, and while something is on its way.
        let shared = accepted.clone();
        client.write_all(b"twofor").await.unwrap();
        assert!(tx.try_send(accepted.detach().unwrap()).is_ok());
        drop(shared);
        let mut echo = BytesMut::new();
        while echo.len() < 6 {
            client.read_into(&mut echo).await.unwrap();
        }
        assert_eq!(echo, "twofor");
        client.local_addr()
    })
    .unwrap();
    assert_eq!(server.join().unwrap(), client);
}

#[test]
fn a_socket_may_take_the_largest_datagrams() {
    run_control(async {
        let any = "127.0.0.1:0".parse().unwrap();
        let mut here = UdpSocket::bind(any, 1 << 20).unwrap();
        here.set_datagram_max(usize::MAX);
        let there = UdpSocket::bind(any, 1 << 16).unwrap().sender();
        let (long, short) = (vec![7; 60_000], vec![8; 10]);
        for data in [&long, &short] {
            there.send_to(data, here.local_addr()).await.unwrap();
        }
        let mut got = Vec::new();
        while got.len() < 2 {
            here.recv_batch(&mut got).await.unwrap();
        }
        assert!(got[0].1 == long && got[1].1 == short);
    })
    .unwrap();
}
