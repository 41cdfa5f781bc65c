//! The signalling thread: what reaches it, and the SIP socket with the thread that reads it.

mod agent;
mod answer;
pub mod digest;
mod invite;
pub mod message;
mod sdp;
pub mod xml;

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread::JoinHandle,
    time::Duration,
};

use crate::{Alarm, ChannelConfig, DeviceConfig, Log, SessionId, SipTransport};

/// How often the reader looks whether it is still wanted.
const READ_TIMEOUT: Duration = Duration::from_millis(200);
/// How long a TCP connection to the platform may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);
/// How long a write to the platform may take.
const WRITE_LIMIT: Duration = Duration::from_secs(3);

/// What reaches the signalling thread.
#[derive(Debug)]
pub enum Input {
    Command(Command),
    /// Bytes from the socket of this generation.
    Bytes(u32, Vec<u8>),
    /// The connection of this generation has ended.
    Closed(u32),
    /// Everything of a playback has been sent.
    MediaSent(SessionId),
    /// The media connection has failed.
    MediaBroken(SessionId),
}

/// What the device's owner wants.
#[derive(Debug)]
pub enum Command {
    Keepalives(bool),
    KeepaliveNow,
    Register,
    Unregister,
    Reconnect,
    AddChannel(ChannelConfig),
    RemoveChannel(String),
    ChannelOnline(String, bool),
    Alarm(Alarm),
    HangUp(SessionId),
    Stall(SessionId),
    /// Ends; with so much time for goodbyes.
    Stop(Duration),
}

/// Starts the threads of a device.
pub fn start(config: DeviceConfig, log: Arc<Log>) -> io::Result<(mpsc::Sender<Input>, JoinHandle<()>)> {
    let (inbox, inputs) = mpsc::channel();
    let agent = agent::Agent::new(config, log, inbox.clone())?;
    let thread = std::thread::Builder::new()
        .name("gb28181-sip".into())
        .spawn(move || agent.run(&inputs))?;
    Ok((inbox, thread))
}

/// The SIP socket.
#[derive(Debug)]
pub struct Wire {
    socket: Socket,
    generation: u32,
    pub local: SocketAddr,
    ended: Arc<AtomicBool>,
}

#[derive(Debug)]
enum Socket {
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Wire {
    /// Opens a socket to the platform and reads from it.
    pub fn open(config: &DeviceConfig, generation: u32, inbox: mpsc::Sender<Input>) -> io::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let stop = ended.clone();
        let reader = std::thread::Builder::new().name("gb28181-read".into());
        match config.transport {
            SipTransport::Udp => {
                let socket = UdpSocket::bind((config.local_ip, 0))?;
                // Connected: an answer from another address than the one that was asked is none.
                socket.connect(config.server)?;
                let reading = socket.try_clone()?;
                reading.set_read_timeout(Some(READ_TIMEOUT))?;
                reader.spawn(move || read_datagrams(&reading, generation, &inbox, &stop))?;
                Ok(Self {
                    local: socket.local_addr()?,
                    socket: Socket::Udp(socket),
                    generation,
                    ended,
                })
            }
            SipTransport::Tcp => {
                let stream = TcpStream::connect_timeout(&config.server, CONNECT_LIMIT)?;
                stream.set_nodelay(true)?;
                stream.set_write_timeout(Some(WRITE_LIMIT))?;
                let reading = stream.try_clone()?;
                reading.set_read_timeout(Some(READ_TIMEOUT))?;
                reader.spawn(move || read_stream(reading, generation, &inbox, &stop))?;
                Ok(Self {
                    local: stream.local_addr()?,
                    socket: Socket::Tcp(stream),
                    generation,
                    ended,
                })
            }
        }
    }

    pub const fn generation(&self) -> u32 {
        self.generation
    }

    /// Sends a message; a connection that does not take it is seen by its reader.
    pub fn send(&self, bytes: &[u8]) {
        match &self.socket {
            Socket::Udp(socket) => drop(socket.send(bytes)),
            Socket::Tcp(stream) => drop((&mut &*stream).write_all(bytes)),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.ended.store(true, Ordering::Relaxed);
        if let Socket::Tcp(stream) = &self.socket {
            // It may have ended already.
            drop(stream.shutdown(std::net::Shutdown::Both));
        }
    }
}

fn read_datagrams(socket: &UdpSocket, generation: u32, inbox: &mpsc::Sender<Input>, stop: &AtomicBool) {
    let mut buffer = vec![0; 65_536];
    while !stop.load(Ordering::Relaxed) {
        match socket.recv(&mut buffer) {
            Ok(len) => {
                if inbox.send(Input::Bytes(generation, buffer[..len].to_vec())).is_err() {
                    return;
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {}
            // Refused: nobody listens at the platform's port for now.
            Err(_) => std::thread::sleep(READ_TIMEOUT),
        }
    }
}

fn read_stream(mut stream: TcpStream, generation: u32, inbox: &mpsc::Sender<Input>, stop: &AtomicBool) {
    let mut buffer = vec![0; 16_384];
    while !stop.load(Ordering::Relaxed) {
        let input = match stream.read(&mut buffer) {
            Ok(len) if len > 0 => Input::Bytes(generation, buffer[..len].to_vec()),
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => continue,
            _ => {
                drop(inbox.send(Input::Closed(generation)));
                return;
            }
        };
        if inbox.send(input).is_err() {
            return;
        }
    }
}
