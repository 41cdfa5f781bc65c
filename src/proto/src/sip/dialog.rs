//! Dialogs (RFC 3261 section 12) from the side that began them.

use super::{
    Headers, URI_BYTES_MAX,
    header::{NameAddr, Uri},
    message::{Method, Request, Response},
    transaction::CSeqNumber,
};

/// The most proxies on the way; a peer that names more gets requests without a route.
const ROUTES_MAX: usize = 8;

/// What both ends of a session know of each other.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dialog {
    call_id: String,
    /// Our From, with its tag.
    local: String,
    /// Their To, with its tag.
    remote: String,
    /// Where requests are addressed: their Contact, if it is a sane URI.
    target: String,
    routes: Vec<String>,
    /// Number of the request that began the dialog.
    first: u32,
    /// Number of the last request.
    last: u32,
}

impl Dialog {
    /// From the request that began it and the answer to it.
    pub fn new(request: &Request, response: &Response) -> Self {
        let header = |name| request.headers.get(name).unwrap_or_default().to_owned();
        let contact = response.headers.get("Contact").and_then(NameAddr::parse).map(|c| c.uri);
        let sane = |uri: &String| uri.len() <= URI_BYTES_MAX && Uri::parse(uri).is_some();
        let mut routes: Vec<String> = response.headers.get_all("Record-Route").map(str::to_owned).collect();
        routes.reverse();
        if routes.len() > ROUTES_MAX {
            routes.clear();
        }
        let first = request.headers.cseq_number();
        Self {
            call_id: header("Call-ID"),
            local: header("From"),
            remote: response.headers.get("To").map_or_else(|| header("To"), str::to_owned),
            target: contact.filter(sane).unwrap_or_else(|| request.uri.clone()),
            routes,
            first,
            last: first,
        }
    }

    /// Its Call-ID.
    pub fn call_id(&self) -> &str {
        &self.call_id
    }

    /// The next request inside it, without Via.
    pub fn request(&mut self, method: Method) -> Request {
        self.last = self.last.saturating_add(1);
        self.make(method, self.last)
    }

    /// The ACK of the answer that began it, without Via.
    pub fn ack(&self) -> Request {
        self.make(Method::Ack, self.first)
    }

    fn make(&self, method: Method, number: u32) -> Request {
        let cseq = format!("{number} {method}");
        let mut request = Request::new(method, self.target.clone());
        for route in &self.routes {
            request.headers.push("Route", route.clone());
        }
        request.headers.push("From", self.local.clone());
        request.headers.push("To", self.remote.clone());
        request.headers.push("Call-ID", self.call_id.clone());
        request.headers.push("CSeq", cseq);
        request.headers.push("Max-Forwards", "70");
        request
    }

    /// Whether a request of the peer is inside this dialog (section 12.2.2). Devices leave tags out; one that is there must be right.
    pub fn covers(&self, headers: &Headers) -> bool {
        let tag = |text: Option<&str>| NameAddr::parse(text?)?.tag().map(str::to_owned);
        let agrees = |theirs: Option<&str>, ours: &str| match (tag(theirs), tag(Some(ours))) {
            (Some(a), Some(b)) => a == b,
            _ => true,
        };
        headers.get("Call-ID") == Some(&self.call_id)
            && agrees(headers.get("From"), &self.remote)
            && agrees(headers.get("To"), &self.local)
    }
}
