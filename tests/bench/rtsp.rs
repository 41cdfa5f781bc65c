//! The smallest RTSP client that can set a session up and time it. It throws the media away.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, Instant},
};

use bytes::{Buf, BytesMut};
use corenvr_shard::net::Stream;

/// One connection with one session.
pub struct Client {
    /// The socket.
    pub stream: Stream,
    /// What has arrived and is not consumed.
    pub buffer: BytesMut,
    url: String,
    session: String,
    cseq: u32,
}

impl Client {
    /// DESCRIBE and SETUP of every track, interleaved.
    pub async fn set_up(address: SocketAddr, url: &str) -> io::Result<Self> {
        let stream = Stream::connect(address, Duration::from_secs(10)).await?;
        let mut client = Self {
            stream,
            buffer: BytesMut::new(),
            url: url.into(),
            session: String::new(),
            cseq: 0,
        };
        let (_, description) = client.request("DESCRIBE", url, "Accept: application/sdp\r\n").await?;
        let media = description.split("m=").skip(1);
        let controls: Vec<String> = media
            .filter_map(|m| {
                m.lines()
                    .find_map(|l| l.strip_prefix("a=control:"))
                    .map(|c| c.trim().to_owned())
            })
            .collect();
        for (i, control) in controls.iter().enumerate() {
            let transport = format!(
                "Transport: RTP/AVP/TCP;unicast;interleaved={}-{}\r\n{}",
                2 * i,
                2 * i + 1,
                client.session
            );
            let (head, _) = client.request("SETUP", control, &transport).await?;
            let id = head
                .lines()
                .find_map(|l| l.strip_prefix("Session:"))
                .unwrap_or_default();
            client.session = format!("Session: {}\r\n", id.split(';').next().unwrap_or_default().trim());
        }
        Ok(client)
    }

    /// PLAY; returns when the reply is there.
    pub async fn play(&mut self, headers: &str) -> io::Result<()> {
        let (url, headers) = (self.url.clone(), format!("{}{headers}", self.session));
        self.request("PLAY", &url, &headers).await.map(drop)
    }

    /// PLAY from a new position; returns how long it took from sending it to the first RTP packet behind the reply.
    pub async fn seek(&mut self, headers: &str) -> io::Result<Duration> {
        let begun = Instant::now();
        self.play(headers).await?;
        loop {
            if let Some(channel) = self.take_interleaved() {
                if channel % 2 == 0 {
                    return Ok(begun.elapsed());
                }
            } else if self.stream.read_into(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Takes one whole interleaved frame off the buffer; returns its channel.
    fn take_interleaved(&mut self) -> Option<u8> {
        if self.buffer.len() < 4 || self.buffer[0] != b'$' {
            return None;
        }
        let len = usize::from(u16::from_be_bytes([self.buffer[2], self.buffer[3]])) + 4;
        if self.buffer.len() < len {
            return None;
        }
        let channel = self.buffer[1];
        self.buffer.advance(len);
        Some(channel)
    }

    async fn request(&mut self, method: &str, url: &str, headers: &str) -> io::Result<(String, String)> {
        self.cseq += 1;
        let text = format!(
            "{method} {url} RTSP/1.0\r\nCSeq: {}\r\nUser-Agent: corenvr-bench\r\n{headers}\r\n",
            self.cseq
        );
        self.stream.write_all(text.as_bytes()).await?;
        loop {
            while self.take_interleaved().is_some() {}
            if self.buffer.first() == Some(&b'R')
                && let Some(end) = self.buffer.windows(4).position(|w| w == b"\r\n\r\n")
            {
                let head = String::from_utf8_lossy(&self.buffer[..end]).into_owned();
                let length = head.lines().find_map(|l| {
                    l.to_lowercase()
                        .strip_prefix("content-length:")
                        .map(|v| v.trim().to_owned())
                });
                let length: usize = length.and_then(|v| v.parse().ok()).unwrap_or(0);
                if self.buffer.len() >= end + 4 + length {
                    self.buffer.advance(end + 4);
                    let body = String::from_utf8_lossy(&self.buffer.split_to(length)).into_owned();
                    if !head.starts_with("RTSP/1.0 200") {
                        return Err(io::Error::other(format!(
                            "{method} {url}: {}",
                            head.lines().next().unwrap_or_default()
                        )));
                    }
                    return Ok((head, body));
                }
            }
            if self.stream.read_into(&mut self.buffer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}
