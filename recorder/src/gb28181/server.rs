//! The SIP server on the control executor: its sockets, its timers, and the cameras that wait for devices.

use std::{
    cell::RefCell,
    collections::HashMap,
    io,
    net::SocketAddr,
    path::PathBuf,
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use corenvr_media::WallTime;
use corenvr_proto::gb28181::{
    id::DeviceId,
    manscdp::{Alarm, Control},
    platform::{
        Accounts, CatalogState, CommandError, ConnectionId, DialogId, Event, Invite, Platform, PlatformConfig, Query,
        QueryId, QueryResult, RefusedWhy,
    },
    url::{Channel, Gb28181Url},
};
use corenvr_shard::{
    Class, Task, blocking,
    channel::{OneshotSender, Sender, TrySendError, oneshot},
    net::{Listener, Stream, UdpSocket},
    spawn,
    time::{sleep, wall_now_micros},
};

use super::{
    DeviceView, RefusedView, SignallingInbox,
    connections::{Outlets, Seen},
    link::{Answered, Ask, LinkId, Told},
    state,
};

/// What the kernel is asked to hold of SIP datagrams: some hundred devices that answer at once.
const RECEIVE_BUFFER: usize = 4 << 20;
/// The largest SIP datagram.
const DATAGRAM_MAX: usize = 65_535;
/// How often the machine's timers and the waiting cameras are looked at.
const ROUND: Duration = Duration::from_millis(100);
/// How often the reasons that cameras wait for are looked at.
const REASONS: Duration = Duration::from_secs(2);
/// Changes of the registrations are kept at most this much later.
const PERSIST: Duration = Duration::from_secs(1);
/// A channel is asked for a key frame at most this often.
const KEY_FRAME_INTERVAL: Duration = Duration::from_secs(2);
/// A device that does not tell its channels is taken for one that has none but itself after this.
const CATALOG_PATIENCE: Duration = Duration::from_secs(8);
/// How long devices may take to hear that their sessions end.
const FAREWELL: Duration = Duration::from_millis(300);

/// How the server is set up.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Where it listens, over UDP and TCP.
    pub listen: Vec<SocketAddr>,
    /// Who it is.
    pub platform: PlatformConfig,
    /// Where registrations are kept.
    pub state_file: PathBuf,
}

/// The server cannot listen.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({transport}): {source}")]
pub struct ServerError {
    /// The address.
    pub address: SocketAddr,
    /// `UDP` or `TCP`.
    pub transport: &'static str,
    /// Why not.
    pub source: io::Error,
}

/// Something the rest of the recorder wants to know.
#[derive(Debug, Clone)]
pub enum Notice {
    /// The channels of a device have changed.
    CatalogChanged(DeviceId),
    /// A device reports an alarm.
    Alarm {
        /// The device.
        device: DeviceId,
        /// Which channel or input of it, if it says.
        source: Option<DeviceId>,
        /// What it says.
        alarm: Box<Alarm>,
    },
}

/// A camera that waits for a device, or has a session with it.
struct Waiting {
    url: Box<Gb28181Url>,
    told: Sender<Told>,
    /// What is invited, once that is known.
    channel: Option<DeviceId>,
    dialog: Option<DialogId>,
    /// The last reason told; `None` once it was told that it may invite.
    reason: Option<String>,
    key_frame: Option<Instant>,
}

struct Inner {
    platform: Platform,
    outlets: Outlets,
    links: HashMap<LinkId, Waiting>,
    dialogs: HashMap<DialogId, LinkId>,
    queries: HashMap<QueryId, OneshotSender<QueryResult>>,
    notices: Sender<Notice>,
    persist: Option<Instant>,
}

/// The running server. Lives on the control executor; dropping it stops it at once.
pub struct Server {
    inner: Rc<RefCell<Inner>>,
    state_file: PathBuf,
    tasks: RefCell<Vec<Task<()>>>,
    listening: Vec<SocketAddr>,
}

fn wall() -> WallTime {
    WallTime::from_micros(wall_now_micros())
}

impl Server {
    /// Listens and serves. What happens goes to `notices`; one that finds it full is lost and logged.
    pub fn start(
        config: ServerConfig,
        inbox: SignallingInbox,
        notices: Sender<Notice>,
    ) -> Result<Rc<Self>, ServerError> {
        let now = Instant::now();
        let mut platform = Platform::new(now, config.platform, rand::random());
        match state::read(&config.state_file) {
            Ok(devices) => platform.restore(now, wall(), devices),
            Err(error) => tracing::warn!(
                file = %config.state_file.display(), %error,
                "the registrations of before cannot be read: devices are heard of when they register again"
            ),
        }
        let mut outlets = Outlets::default();
        let mut sockets = Vec::new();
        let mut listeners = Vec::new();
        for &address in &config.listen {
            let failed = |transport| {
                move |source| ServerError {
                    address,
                    transport,
                    source,
                }
            };
            // The listener has SO_REUSEPORT and would share the port with another program of the same user without a word.
            std::net::TcpListener::bind(address).map_err(failed("TCP"))?;
            let listener = Listener::tcp(address).map_err(failed("TCP"))?;
            // With port 0 both transports are to have the same.
            let same = SocketAddr::new(address.ip(), listener.local_addr().port());
            let mut socket = UdpSocket::bind(same, RECEIVE_BUFFER).map_err(failed("UDP"))?;
            socket.set_datagram_max(DATAGRAM_MAX);
            outlets.add_udp(same, socket.sender());
            sockets.push((same, socket));
            listeners.push(listener);
        }
        let listening = sockets.iter().map(|(address, _)| *address).collect();
        let inner = Rc::new(RefCell::new(Inner {
            platform,
            outlets,
            links: HashMap::new(),
            dialogs: HashMap::new(),
            queries: HashMap::new(),
            notices,
            persist: None,
        }));
        let mut tasks = Vec::new();
        for (bound, socket) in sockets {
            let task = receive(inner.clone(), bound, socket);
            tasks.push(spawn(Class::Recording, "sip udp", task));
        }
        for listener in listeners {
            tasks.push(spawn(Class::Recording, "sip tcp", accept(inner.clone(), listener)));
        }
        tasks.push(spawn(
            Class::Recording,
            "sip cameras",
            serve_links(inner.clone(), inbox),
        ));
        let rounds = rounds(inner.clone(), config.state_file.clone());
        tasks.push(spawn(Class::Recording, "sip timers", rounds));
        Ok(Rc::new(Self {
            inner,
            state_file: config.state_file,
            tasks: RefCell::new(tasks),
            listening,
        }))
    }

    /// Where it listens.
    pub fn listening(&self) -> &[SocketAddr] {
        &self.listening
    }

    /// Which devices may come, and with which password.
    pub fn set_accounts(&self, accounts: Accounts) {
        self.with(|inner| inner.platform.set_accounts(accounts));
    }

    /// The devices that have registered.
    pub fn devices(&self) -> Vec<DeviceView> {
        let inner = self.inner.borrow();
        inner.platform.devices().map(DeviceView::from).collect()
    }

    /// Who was refused.
    pub fn refused(&self) -> Vec<RefusedView> {
        let inner = self.inner.borrow();
        inner.platform.refused().map(RefusedView::from).collect()
    }

    /// The channels of a device that are cameras, with their names; `None` while its catalog is not known.
    pub fn cameras(&self, device: DeviceId) -> Option<Vec<(DeviceId, String)>> {
        let inner = self.inner.borrow();
        let found = inner.platform.device(device)?;
        if found.channels.is_empty() && found.catalog != CatalogState::Complete {
            return None;
        }
        let cameras = found.channels.iter().filter(|c| c.is_camera());
        Some(cameras.map(|c| (c.id, c.name.clone())).collect())
    }

    /// Asks a device or one of its channels.
    pub async fn query(&self, device: DeviceId, target: DeviceId, query: Query) -> Result<QueryResult, CommandError> {
        let (reply, answer) = oneshot();
        let asked = self.with(|inner| {
            let id = inner.platform.query(Instant::now(), device, target, query)?;
            inner.queries.insert(id, reply);
            Ok(())
        });
        asked?;
        Ok(answer.await.unwrap_or(QueryResult::Failed {
            reason: "the SIP server has stopped".into(),
        }))
    }

    /// Sends a command to a device or one of its channels.
    pub fn control(&self, device: DeviceId, target: DeviceId, control: Control) -> Result<(), CommandError> {
        self.with(|inner| inner.platform.control(Instant::now(), device, target, control))
    }

    /// Which channel a camera's URL means at present; in words if that cannot be said.
    pub fn channel_of(&self, url: &Gb28181Url) -> Result<DeviceId, String> {
        self.inner.borrow().channel_of(url)
    }

    /// Ends every session and keeps the registrations.
    pub async fn stop(&self) {
        self.with(|inner| {
            let now = Instant::now();
            for (dialog, _) in std::mem::take(&mut inner.dialogs) {
                inner.platform.bye(now, dialog);
            }
            inner.links.clear();
        });
        sleep(FAREWELL).await;
        for task in self.tasks.take() {
            task.cancel().await;
        }
        let (path, known) = (self.state_file.clone(), self.inner.borrow().platform.known());
        keep(path, known).await;
    }

    fn with<R>(&self, f: impl FnOnce(&mut Inner) -> R) -> R {
        let mut inner = self.inner.borrow_mut();
        let result = f(&mut inner);
        inner.pump();
        result
    }
}

impl Inner {
    /// Carries out everything the machine wants.
    fn pump(&mut self) {
        loop {
            while let Some(transmit) = self.platform.poll_transmit() {
                self.outlets.send(transmit);
            }
            while let Some(id) = self.platform.poll_close() {
                self.outlets.close(id);
            }
            let Some(event) = self.platform.poll_event() else {
                return;
            };
            self.on_event(event);
        }
    }

    fn on_event(&mut self, event: Event) {
        match event {
            Event::Online(device) => {
                tracing::info!(%device, "GB28181 device is online");
                self.look_at(Some(device));
            }
            Event::Offline { device, why } => {
                tracing::warn!(%device, %why, "GB28181 device is offline");
                self.look_at(Some(device));
            }
            Event::Moved(device) => self.tell_sessions_of(device),
            Event::CatalogChanged(device) => {
                self.look_at(Some(device));
                self.notice(Notice::CatalogChanged(device));
            }
            Event::Answered {
                dialog,
                answer,
                ssrc,
                source,
            } => {
                let answered = Answered { answer, ssrc, source };
                self.tell_dialog(dialog, Told::Answered(Box::new(answered)));
            }
            Event::InviteFailed { dialog, status, reason } => {
                self.tell_dialog(dialog, Told::Refused { status, reason });
                self.forget(dialog);
            }
            Event::Ended { dialog, why } => {
                let complete = why == corenvr_proto::gb28181::platform::EndedWhy::Complete;
                let reason = why.to_string();
                self.tell_dialog(dialog, Told::Ended { reason, complete });
                self.forget(dialog);
            }
            Event::InfoAnswered { dialog, status, answer } => self.tell_dialog(dialog, Told::Info { status, answer }),
            Event::QueryDone { query, result } => {
                if let Some(reply) = self.queries.remove(&query) {
                    reply.send(result);
                }
            }
            Event::Alarm { device, source, alarm } => {
                let alarm = Box::new(alarm);
                self.notice(Notice::Alarm { device, source, alarm });
            }
            Event::Persist => {
                self.persist.get_or_insert_with(|| Instant::now() + PERSIST);
            }
        }
    }

    fn notice(&self, notice: Notice) {
        if let Err(TrySendError::Full(lost)) = self.notices.try_send(notice) {
            tracing::error!(?lost, "too much happens at once: this is lost");
        }
    }

    fn tell_dialog(&mut self, dialog: DialogId, told: Told) {
        let Some(&id) = self.dialogs.get(&dialog) else { return };
        let full = self.links.get(&id).is_some_and(|l| l.told.try_send(told).is_err());
        if full {
            self.close(id);
        }
    }

    /// A dialog that the device has ended, or never began.
    fn forget(&mut self, dialog: DialogId) {
        if let Some(link) = self.dialogs.remove(&dialog).and_then(|id| self.links.get_mut(&id)) {
            link.dialog = None;
        }
    }

    fn tell_sessions_of(&self, device: DeviceId) {
        for link in self.links.values() {
            if link.url.device == device && link.dialog.is_some() {
                // One that is full has enough to do; it sees by itself when its media stops.
                drop(link.told.try_send(Told::Moved));
            }
        }
    }

    fn close(&mut self, id: LinkId) {
        let Some(link) = self.links.remove(&id) else { return };
        if let Some(dialog) = link.dialog {
            self.dialogs.remove(&dialog);
            self.platform.bye(Instant::now(), dialog);
        }
    }

    /// Tells the cameras of a device (or all) whether they may invite, where that has changed.
    fn look_at(&mut self, device: Option<DeviceId>) {
        let waiting = self.links.iter().filter(|(_, link)| {
            link.dialog.is_none() && link.reason.is_some() && device.is_none_or(|d| d == link.url.device)
        });
        let ids: Vec<LinkId> = waiting.map(|(id, _)| *id).collect();
        for id in ids {
            self.look_at_one(id);
        }
    }

    fn look_at_one(&mut self, id: LinkId) {
        let Some(url) = self.links.get(&id).map(|l| l.url.clone()) else {
            return;
        };
        let channel = self.may_invite(&url);
        let Some(link) = self.links.get_mut(&id) else { return };
        match channel {
            Ok(channel) => {
                link.channel = Some(channel);
                link.reason = None;
                drop(link.told.try_send(Told::Ready));
            }
            Err(reason) if link.reason.as_ref() != Some(&reason) => {
                link.reason = Some(reason.clone());
                drop(link.told.try_send(Told::Waiting(reason)));
            }
            Err(_) => {}
        }
    }

    /// Which channel can be invited; in words if none can.
    fn may_invite(&self, url: &Gb28181Url) -> Result<DeviceId, String> {
        let id = url.device;
        let refused = self.platform.refused().find(|r| r.id == id);
        match (self.platform.device(id), refused) {
            (Some(device), _) if device.online => self.channel_of(url),
            // A camera names it by now.
            (_, Some(refused)) if matches!(refused.why, RefusedWhy::Pending | RefusedWhy::Unknown) => Err(format!(
                "device {id} at {} asked before it was known here; it is let in when it asks again, which most do once a minute",
                refused.peer.ip()
            )),
            (_, Some(refused)) => Err(format!(
                "device {id} at {} is refused: {}; `corenvr gb28181 setup` prints what to type into its page",
                refused.peer.ip(),
                refused.why
            )),
            (Some(device), None) => Err(format!("device {id} is offline since {}", device.since)),
            (None, None) => Err(format!(
                "device {id} has not registered yet; `corenvr gb28181 setup` prints what to type into its page"
            )),
        }
    }

    fn channel_of(&self, url: &Gb28181Url) -> Result<DeviceId, String> {
        match url.channel {
            Channel::One(channel) => return Ok(channel),
            Channel::All => return Err("every channel is a camera of its own".into()),
            Channel::Device => {}
        }
        let id = url.device;
        let Some(device) = self.platform.device(id) else {
            return Err(format!("device {id} has not registered yet"));
        };
        let asked = matches!(device.catalog, CatalogState::Unasked | CatalogState::Asked);
        if asked && device.channels.is_empty() && wall().saturating_since(device.since) < CATALOG_PATIENCE {
            return Err(format!("device {id} is being asked for its channels"));
        }
        let cameras: Vec<DeviceId> = device.channels.iter().filter(|c| c.is_camera()).map(|c| c.id).collect();
        match cameras.as_slice() {
            // It lists none, or does not answer: many cameras show their one channel under their own id.
            [] => Ok(id),
            [one] => Ok(*one),
            many if many.contains(&id) => Ok(id),
            many => Err(format!(
                "device {id} has {} channels: name one, as in gb28181://{id}/{}, or all of them with gb28181://{id}/*",
                many.len(),
                many[0]
            )),
        }
    }

    fn on_ask(&mut self, ask: Ask) {
        match ask {
            Ask::Open { id, url, told } => {
                let waiting = Waiting {
                    url,
                    told,
                    channel: None,
                    dialog: None,
                    reason: Some(String::new()),
                    key_frame: None,
                };
                self.links.insert(id, waiting);
                self.look_at_one(id);
            }
            Ask::Invite {
                id,
                kind,
                transport,
                stream,
                media_port,
            } => self.invite(id, |device, channel| Invite {
                device,
                channel,
                kind,
                transport,
                media_port,
                stream,
                ssrc: None,
            }),
            Ask::Info { id, action } => self.info(id, action),
            Ask::KeyFrame(id) => self.key_frame(id),
            Ask::Close(id) => self.close(id),
        }
    }

    fn invite(&mut self, id: LinkId, invite: impl FnOnce(DeviceId, DeviceId) -> Invite) {
        let Some(link) = self.links.get_mut(&id) else { return };
        let (device, Some(channel)) = (link.url.device, link.channel) else {
            return;
        };
        if let Some(before) = link.dialog.take() {
            self.dialogs.remove(&before);
            self.platform.bye(Instant::now(), before);
        }
        match self.platform.invite(Instant::now(), invite(device, channel)) {
            Ok(dialog) => {
                link.dialog = Some(dialog);
                self.dialogs.insert(dialog, id);
            }
            Err(error) => {
                let reason = error.to_string();
                drop(link.told.try_send(Told::Refused { status: None, reason }));
            }
        }
    }

    fn info(&mut self, id: LinkId, action: corenvr_proto::gb28181::mansrtsp::Action) {
        let Some(link) = self.links.get(&id) else { return };
        let sent = link
            .dialog
            .map(|dialog| self.platform.info(Instant::now(), dialog, action));
        if !matches!(sent, Some(Ok(()))) {
            let (status, answer) = (None, None);
            drop(link.told.try_send(Told::Info { status, answer }));
        }
    }

    fn key_frame(&mut self, id: LinkId) {
        let now = Instant::now();
        let Some(link) = self.links.get_mut(&id) else { return };
        let recently = link
            .key_frame
            .is_some_and(|at| now.saturating_duration_since(at) < KEY_FRAME_INTERVAL);
        if let (Some(channel), false) = (link.channel, recently) {
            link.key_frame = Some(now);
            if let Err(error) = self.platform.control(now, link.url.device, channel, Control::KeyFrame) {
                tracing::debug!(%channel, %error, "a key frame cannot be asked for");
            }
        }
    }

    /// Cameras that are gone without a word.
    fn sweep(&mut self) {
        let gone: Vec<LinkId> = self
            .links
            .iter()
            .filter(|(_, l)| l.told.is_closed())
            .map(|(id, _)| *id)
            .collect();
        for id in gone {
            self.close(id);
        }
    }
}

async fn receive(inner: Rc<RefCell<Inner>>, bound: SocketAddr, mut socket: UdpSocket) {
    let mut batch = Vec::new();
    loop {
        if let Err(error) = socket.recv_batch(&mut batch).await {
            tracing::warn!(%error, %bound, "the SIP socket receives nothing");
            sleep(Duration::from_secs(1)).await;
            continue;
        }
        let mut inner = inner.borrow_mut();
        let (now, wall) = (Instant::now(), wall());
        for (peer, data) in batch.drain(..) {
            let local = inner.outlets.local(bound, peer);
            inner.platform.datagram(now, wall, local, peer, &data);
        }
        inner.pump();
    }
}

async fn accept(inner: Rc<RefCell<Inner>>, listener: Listener) {
    loop {
        match listener.accept().await {
            Ok(stream) => {
                let task = spawn(Class::Recording, "sip connection", connection(inner.clone(), stream));
                task.detach();
            }
            Err(error) => {
                tracing::warn!(%error, "the SIP port accepts no connection");
                sleep(Duration::from_secs(1)).await;
            }
        }
    }
}

/// Takes a connection out of the machine whatever ends its task.
struct Registered {
    inner: Rc<RefCell<Inner>>,
    id: ConnectionId,
}

impl Drop for Registered {
    fn drop(&mut self) {
        let mut inner = self.inner.borrow_mut();
        inner.outlets.remove_connection(self.id);
        inner.platform.closed(Instant::now(), wall(), self.id);
        inner.pump();
    }
}

async fn connection(inner: Rc<RefCell<Inner>>, mut stream: Stream) {
    let canonical = |a: SocketAddr| SocketAddr::new(a.ip().to_canonical(), a.port());
    let (local, peer) = (canonical(stream.local_addr()), canonical(stream.peer_addr()));
    let (id, mut orders) = inner.borrow_mut().outlets.add_connection();
    let registered = Registered { inner, id };
    {
        let mut inner = registered.inner.borrow_mut();
        inner.platform.connected(Instant::now(), id, local, peer);
        inner.pump();
    }
    let mut buffer = BytesMut::new();
    while let Seen::Bytes = orders.drive(&mut stream, &mut buffer).await {
        let mut inner = registered.inner.borrow_mut();
        inner.platform.input(Instant::now(), wall(), id, &mut buffer);
        inner.pump();
    }
}

async fn serve_links(inner: Rc<RefCell<Inner>>, mut inbox: SignallingInbox) {
    while let Some(ask) = inbox.0.recv().await {
        let mut inner = inner.borrow_mut();
        inner.on_ask(ask);
        inner.pump();
    }
}

/// Timers, waiting cameras, and what is to be kept.
async fn rounds(inner: Rc<RefCell<Inner>>, state_file: PathBuf) {
    let mut reasons = Instant::now();
    loop {
        sleep(ROUND).await;
        let now = Instant::now();
        let known = {
            let mut inner = inner.borrow_mut();
            if inner.platform.poll_timeout().is_some_and(|due| due <= now) {
                inner.platform.handle_timeout(now, wall());
            }
            if now >= reasons {
                reasons = now + REASONS;
                inner.sweep();
                inner.look_at(None);
            }
            inner.pump();
            let due = inner.persist.is_some_and(|due| due <= now);
            due.then(|| {
                inner.persist = None;
                inner.platform.known()
            })
        };
        if let Some(known) = known {
            keep(state_file.clone(), known).await;
        }
    }
}

async fn keep(path: PathBuf, known: Vec<corenvr_proto::gb28181::platform::KnownDevice>) {
    let shown = path.display().to_string();
    let written = blocking(move || state::write(&path, known)).await;
    match written {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::error!(file = shown, %error, "the registrations cannot be kept over a restart"),
        Err(error) => tracing::error!(file = shown, %error, "the registrations cannot be kept over a restart"),
    }
}
