//! The command line's side: one request, one answer, over the unix socket, without an executor.

use std::{
    io::{self, Read, Write},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Serialize, de::DeserializeOwned};

use corenvr_media::{CameraName, TimeRange};

use super::api::{CameraList, Problem, SegmentList, SegmentView, camera_path};
use crate::config::{self, LoadError};

/// Largest answer that is read.
const ANSWER_BYTES_MAX: u64 = 256 << 20;
/// How long an answer may take; a probe of a dead camera is the slowest.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(120);

/// The running recorder did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The configuration says where the socket is, and cannot be read.
    #[error(transparent)]
    Config(#[from] LoadError),
    /// Nobody listens.
    #[error(
        "corenvr is not running: nobody listens on {}. Start it with `systemctl start corenvr` or `corenvr run --config {}`; if it runs with another configuration, name that with --config", socket.display(), config.display()
    )]
    NotRunning {
        /// The socket.
        socket: PathBuf,
        /// The configuration that was used.
        config: PathBuf,
    },
    /// The socket is not ours to open.
    #[error("this user may not talk to corenvr over {}: run as root or as the service's user (sudo -u corenvr ...)", socket.display())]
    NotAllowed {
        /// The socket.
        socket: PathBuf,
    },
    /// The connection failed midway.
    #[error("talking to corenvr over {}: {source}", socket.display())]
    Io {
        /// The socket.
        socket: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// What came back is not an answer of ours.
    #[error("corenvr answered with something else: {0}; do the command line and the recorder have the same version?")]
    Answer(String),
    /// It refused, and said why.
    #[error("{}{}", problem.detail, remedy(problem))]
    Refused {
        /// The HTTP status.
        status: u16,
        /// The reason.
        problem: Problem,
    },
}

fn remedy(problem: &Problem) -> String {
    if problem.remedy.is_empty() {
        String::new()
    } else {
        format!(". Remedy: {}", problem.remedy)
    }
}

/// The way to the running recorder.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    state_dir: PathBuf,
    config: PathBuf,
}

impl Client {
    /// The recorder that runs with this configuration. Errors in the file do not matter here; where it says nothing, the default
    /// socket is meant.
    pub fn from_config(path: &Path) -> Result<Self, ClientError> {
        let server = match config::load_server(path) {
            Ok(server) => server,
            // Without the default file everything is at its default; a file that was named must be there.
            Err(LoadError::Read { source, .. })
                if source.kind() == io::ErrorKind::NotFound && path == Path::new(config::DEFAULT_PATH) =>
            {
                config::Server::default()
            }
            Err(error) => return Err(error.into()),
        };
        Ok(Self {
            socket: server.socket(),
            state_dir: server.state_dir,
            config: path.to_owned(),
        })
    }

    /// Where that recorder keeps its accounts.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Asks for a document.
    pub fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request("GET", path, &[])
    }

    /// All cameras, however many answers they take.
    pub fn cameras(&self) -> Result<CameraList, ClientError> {
        let mut all: CameraList = self.get("/api/v1/cameras")?;
        while let Some(cursor) = all.next.take() {
            let more: CameraList = self.get(&format!("/api/v1/cameras?cursor={cursor}"))?;
            all.cameras.extend(more.cameras);
            // One that does not move on would go on for ever.
            all.next = more.next.filter(|next| *next != cursor);
        }
        Ok(all)
    }

    /// All files of a camera that hold a range, however many answers they take.
    pub fn segments(&self, name: &CameraName, range: TimeRange) -> Result<Vec<SegmentView>, ClientError> {
        let path = camera_path(name, &format!("/segments?from={}&to={}", range.start, range.end));
        let mut all: SegmentList = self.get(&path)?;
        while let Some(cursor) = all.next.take() {
            let more: SegmentList = self.get(&format!("{path}&cursor={cursor}"))?;
            all.segments.extend(more.segments);
            all.next = more.next.filter(|next| *next != cursor);
        }
        Ok(all.segments)
    }

    /// Sends a document and reads one.
    pub fn send<T: DeserializeOwned>(&self, method: &str, path: &str, body: &impl Serialize) -> Result<T, ClientError> {
        let body = serde_json::to_vec(body).map_err(|e| ClientError::Answer(e.to_string()))?;
        self.request(method, path, &body)
    }

    /// Deletes a resource.
    pub fn delete<T: DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.request("DELETE", path, &[])
    }

    /// Deletes a resource of which nothing is told then.
    pub fn remove(&self, path: &str) -> Result<(), ClientError> {
        let (status, answer) = self.exchange("DELETE", path, &[])?;
        if status == 204 {
            return Ok(());
        }
        match serde_json::from_slice(&answer) {
            Ok(problem) => Err(ClientError::Refused { status, problem }),
            Err(error) => Err(ClientError::Answer(format!("status {status}, {error}"))),
        }
    }

    fn request<T: DeserializeOwned>(&self, method: &str, path: &str, body: &[u8]) -> Result<T, ClientError> {
        let (status, answer) = self.exchange(method, path, body)?;
        let not_ours = |e: serde_json::Error| ClientError::Answer(format!("status {status}, {e}"));
        if (200..300).contains(&status) {
            return serde_json::from_slice(&answer).map_err(not_ours);
        }
        let problem: Problem = serde_json::from_slice(&answer).map_err(not_ours)?;
        Err(ClientError::Refused { status, problem })
    }

    /// Asks for a text.
    pub fn text(&self, path: &str) -> Result<String, ClientError> {
        let (status, answer) = self.exchange("GET", path, &[])?;
        match status {
            200..300 | 503 => Ok(String::from_utf8_lossy(&answer).into_owned()),
            status => Err(ClientError::Answer(format!("status {status}"))),
        }
    }

    fn exchange(&self, method: &str, path: &str, body: &[u8]) -> Result<(u16, Vec<u8>), ClientError> {
        let io_error = |source| ClientError::Io {
            socket: self.socket.clone(),
            source,
        };
        let mut stream = UnixStream::connect(&self.socket).map_err(|e| self.not_connected(e))?;
        stream.set_read_timeout(Some(ANSWER_TIMEOUT)).map_err(io_error)?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: corenvr\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(head.as_bytes()).map_err(io_error)?;
        stream.write_all(body).map_err(io_error)?;
        let mut answer = Vec::new();
        stream
            .take(ANSWER_BYTES_MAX)
            .read_to_end(&mut answer)
            .map_err(io_error)?;
        parse(&answer).ok_or_else(|| ClientError::Answer("that is not HTTP".into()))
    }

    fn not_connected(&self, error: io::Error) -> ClientError {
        let socket = self.socket.clone();
        match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => ClientError::NotRunning {
                socket,
                config: self.config.clone(),
            },
            io::ErrorKind::PermissionDenied => ClientError::NotAllowed { socket },
            _ => ClientError::Io { socket, source: error },
        }
    }
}

/// Status and body. The server sends whole bodies and closes, so that no transfer coding has to be undone.
fn parse(answer: &[u8]) -> Option<(u16, Vec<u8>)> {
    let end = answer.windows(4).position(|w| w == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&answer[..end]).ok()?;
    let status = head.strip_prefix("HTTP/1.1 ")?.get(..3)?.parse().ok()?;
    // It has no body, and says nothing of its length (RFC 9110 section 8.6).
    if status == 204 {
        return Some((status, Vec::new()));
    }
    let declared = head.lines().find_map(|l| {
        let (name, value) = l.split_once(':')?;
        name.eq_ignore_ascii_case("content-length")
            .then(|| value.trim().parse::<usize>().ok())?
    })?;
    let body = &answer[end + 4..];
    (body.len() == declared).then(|| (status, body.to_vec()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_whole_or_nothing() {
        assert_eq!(
            parse(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}"),
            Some((200, b"{}".to_vec()))
        );
        for bad in [
            &b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}"[..],
            b"HTTP/1.1 200 OK\r\n\r\n{}",
            b"RTSP/1.0 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 2",
            b"",
        ] {
            assert_eq!(parse(bad), None);
        }
    }

    #[test]
    fn a_recorder_that_does_not_run_is_said_with_how_to_start_it() {
        let dir = tempfile::tempdir().unwrap();
        let config = dir.path().join("c.toml");
        std::fs::write(&config, format!("[server]\nrun_dir = {:?}\n", dir.path())).unwrap();
        let error = Client::from_config(&config)
            .unwrap()
            .get::<serde_json::Value>("/healthz")
            .unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("corenvr run --config") && text.contains("corenvr.sock"),
            "{text}"
        );
        let missing = Client::from_config(&dir.path().join("none.toml")).unwrap_err();
        assert!(missing.to_string().contains("none.toml"));
    }
}
