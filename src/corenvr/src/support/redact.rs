//! Secrets are taken out of everything that goes into a bundle, twice: where a setting is known to hold one, and again wherever the same
//! text turns up. What looks like a login in a URL goes whether it is known or not.

use std::collections::BTreeSet;

use toml_edit::{DocumentMut, Item, TableLike, Value};

/// What stands in the place of a secret.
pub const MASK: &str = "[secret]";
/// Shorter secrets are taken out of settings and URLs alone: replacing them everywhere would leave nothing to read.
const ANYWHERE_CHARS_MIN: usize = 4;

/// Words in the names of settings that hold secrets. `key` is the name of a file in `[rtsp]` and `[http]`, and says nothing secret there.
const SECRET_WORDS: [&str; 6] = ["password", "passwd", "secret", "token", "hash", "ha1"];

/// Knows the secrets of this installation.
#[derive(Default)]
pub struct Redactor {
    secrets: BTreeSet<String>,
}

impl Redactor {
    /// A text that must not come out, in any spelling of it.
    pub fn learn(&mut self, secret: &str) {
        let secret = secret.trim();
        if secret.chars().count() < ANYWHERE_CHARS_MIN {
            return;
        }
        let json = serde_json::Value::from(secret).to_string();
        for spelling in [
            secret.to_owned(),
            unescaped(secret),
            escaped(secret),
            json.trim_matches('"').to_owned(),
        ] {
            if spelling.chars().count() >= ANYWHERE_CHARS_MIN {
                self.secrets.insert(spelling);
            }
        }
    }

    /// A configuration without its secrets, which are known from then on. A file that cannot be understood is not shown.
    pub fn configuration(&mut self, text: &str) -> String {
        let Ok(mut document) = text.parse::<DocumentMut>() else {
            return "# cannot be read as TOML and is left out, since secrets cannot be told apart\n".to_owned();
        };
        self.table(document.as_table_mut());
        // Comments may hold what was a setting once.
        let lines = document.to_string();
        let shown = lines.lines().map(|l| comment_masked(l) + "\n").collect::<String>();
        self.clean(&shown)
    }

    fn table(&mut self, table: &mut dyn TableLike) {
        for (key, item) in table.iter_mut() {
            match item {
                Item::Value(value) => self.value(key.get(), value),
                Item::Table(table) => self.table(table),
                Item::ArrayOfTables(tables) => tables.iter_mut().for_each(|table| self.table(table)),
                Item::None => {}
            }
        }
    }

    fn value(&mut self, name: &str, value: &mut Value) {
        match value {
            Value::Array(list) => list.iter_mut().for_each(|v| self.value(name, v)),
            Value::InlineTable(table) => table.iter_mut().for_each(|(k, v)| self.value(k.get(), v)),
            Value::String(text) => {
                let text = text.value().clone();
                let secret = SECRET_WORDS.iter().any(|w| name.contains(w)) && !text.is_empty();
                let shown = if secret {
                    self.learn(&text);
                    MASK.to_owned()
                } else {
                    for secret in secrets_of_urls(&text) {
                        self.learn(&secret);
                    }
                    urls_masked(&text)
                };
                if shown != text {
                    *value = shown.into();
                }
            }
            _ => {}
        }
    }

    /// Any text, without what is known to be secret and without logins in URLs.
    pub fn clean(&self, text: &str) -> String {
        let mut text = urls_masked(text);
        // The longest first: one may be part of another.
        let mut secrets: Vec<_> = self.secrets.iter().collect();
        secrets.sort_by_key(|s| std::cmp::Reverse(s.len()));
        for secret in secrets {
            if text.contains(secret.as_str()) {
                text = text.replace(secret.as_str(), MASK);
            }
        }
        tokens_masked(&headers_masked(&text))
    }
}

/// Comments that look like settings with secrets.
fn comment_masked(line: &str) -> String {
    let inner = line.trim_start();
    let Some(comment) = inner.strip_prefix('#') else {
        return line.to_owned();
    };
    let setting = comment
        .split_once('=')
        .filter(|(name, _)| SECRET_WORDS.iter().any(|w| name.contains(w)));
    match setting {
        Some((name, _)) if name.trim().chars().all(|c| c.is_ascii_alphanumeric() || c == '_') => {
            format!("#{name}= \"{MASK}\"")
        }
        _ => line.to_owned(),
    }
}

/// Where a URL's rest ends.
fn url_end(text: &str) -> usize {
    text.find(|c: char| c.is_whitespace() || matches!(c, '"' | '\'' | '<' | '>' | '`' | '\\' | ')' | ','))
        .unwrap_or(text.len())
}

/// The login of a URL, and what lies behind it: `user:password`, `host/path`. The host may hold no `@`: it is the last one that counts.
fn login(rest: &str) -> Option<(&str, &str)> {
    let authority = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    // A password that was written without escaping may hold a slash: then the login reaches to the last @ before a space.
    let at = rest[..authority].rfind('@').or_else(|| rest.rfind('@'))?;
    Some((&rest[..at], &rest[at + 1..]))
}

fn secrets_of_urls(text: &str) -> Vec<String> {
    let Some((scheme, rest)) = text.split_once("://") else {
        return Vec::new();
    };
    let rest = &rest[..url_end(rest)];
    if scheme == "rtmp+listen" {
        return vec![rest.to_owned()];
    }
    let mut secrets: Vec<String> = login(rest)
        .iter()
        .filter_map(|(l, _)| Some(l.split_once(':')?.1.to_owned()))
        .collect();
    // The last part of an RTMP path is the key of the stream.
    if scheme.starts_with("rtmp") {
        secrets.extend(rest.rsplit('/').next().map(str::to_owned));
    }
    secrets
}

/// `rtsp://user:password@host` as `rtsp://[secret]@host`; keys of RTMP streams likewise.
fn urls_masked(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut left = text;
    while let Some(at) = left.find("://") {
        let (before, rest) = left.split_at(at + 3);
        out.push_str(before);
        let (url, after) = rest.split_at(url_end(rest));
        let scheme_start = before[..at]
            .rfind(|c: char| !(c.is_ascii_alphanumeric() || c == '+'))
            .map_or(0, |i| i + 1);
        let scheme = &before[scheme_start..at];
        if scheme == "rtmp+listen" {
            out.push_str(MASK);
        } else {
            let (masked, host) = login(url).map_or((false, url), |(_, host)| (true, host));
            if masked {
                out.push_str(MASK);
                out.push('@');
            }
            match host.rsplit_once('/') {
                Some((base, key)) if scheme.starts_with("rtmp") && !key.is_empty() => {
                    out.push_str(base);
                    out.push('/');
                    out.push_str(MASK);
                }
                _ => out.push_str(host),
            }
        }
        left = after;
    }
    out.push_str(left);
    out
}

/// What follows these words is a login, whoever wrote it.
fn headers_masked(text: &str) -> String {
    const WORDS: [&str; 4] = ["bearer ", "authorization: ", "cookie: ", "password="];
    let mut out = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let lower = line.to_ascii_lowercase();
        match WORDS.iter().filter_map(|w| Some(lower.find(w)? + w.len())).min() {
            Some(at) => {
                out.push_str(&line[..at]);
                out.push_str(MASK);
                out.push('\n');
            }
            None => out.push_str(line),
        }
    }
    out
}

/// API tokens are known only to those who have them, and by their form: names of metrics begin alike and have no capital letters.
fn tokens_masked(text: &str) -> String {
    const PREFIX: &str = "corenvr_";
    const CHARS_MIN: usize = 20;
    let mut out = String::with_capacity(text.len());
    let mut left = text;
    while let Some(at) = left.find(PREFIX) {
        let (before, rest) = left.split_at(at + PREFIX.len());
        let word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let (secret, after) = rest.split_at(rest.find(|c| !word(c)).unwrap_or(rest.len()));
        out.push_str(before);
        let token = secret.len() >= CHARS_MIN && secret.chars().any(|c| c.is_ascii_uppercase());
        out.push_str(if token { MASK } else { secret });
        left = after;
    }
    out.push_str(left);
    out
}

fn unescaped(text: &str) -> String {
    let mut out = Vec::new();
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        let hex = |b: Option<u8>| char::from(b?).to_digit(16);
        let mut ahead = bytes.clone();
        match (b, hex(ahead.next()), hex(ahead.next())) {
            (b'%', Some(high), Some(low)) => {
                out.push((high * 16 + low) as u8);
                bytes = ahead;
            }
            _ => out.push(b),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn escaped(text: &str) -> String {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || b"-._~".contains(b);
    text.bytes()
        .map(|b| {
            if plain(&b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_lose_their_secrets_and_nothing_else() {
        let text = "# was: rtsp://old:oldpass@10.0.0.1/\n[gb28181]\nid = \"34020000002000000001\"\npassword = \"gb-secret\"\n#password = \"forgotten\"\n\
            [rtsp]\nkey = \"/etc/corenvr/tls/key.pem\"\n[[camera]]\nname = \"door\"\nurl = \"rtsp://admin:p%40ss%2Fword@10.0.0.2:554/s1\"\n\
            [[camera]]\nname = \"push\"\nurl = \"rtmp+listen://StreamKey99\"\n[[camera]]\nname = \"dev\"\nurl = \"gb28181://:devpass@34020000001320000001\"\n";
        let mut redactor = Redactor::default();
        let shown = redactor.configuration(text);
        for secret in ["oldpass", "gb-secret", "forgotten", "p%40ss", "StreamKey99", "devpass"] {
            assert!(!shown.contains(secret), "{secret} in\n{shown}");
        }
        for kept in [
            "34020000002000000001",
            "/etc/corenvr/tls/key.pem",
            "10.0.0.2:554/s1",
            "name = \"door\"",
            "@34020000001320000001",
        ] {
            assert!(shown.contains(kept), "{kept} not in\n{shown}");
        }
        // They are known now, in every spelling.
        let log = redactor.clean("tried p@ss/word and p%40ss%2Fword, key StreamKey99, gb-secret.");
        assert_eq!(log, format!("tried {MASK} and {MASK}, key {MASK}, {MASK}."));
    }

    #[test]
    fn logins_in_urls_and_headers_go_whoever_wrote_them() {
        let redactor = Redactor::default();
        assert_eq!(
            redactor.clean("see rtsp://a:b@h/x, ok"),
            format!("see rtsp://{MASK}@h/x, ok")
        );
        assert_eq!(redactor.clean("rtsp://a:b/c@h/x"), format!("rtsp://{MASK}@h/x"));
        assert_eq!(
            redactor.clean("rtmp://h/app/KEY1 and http://h/a"),
            format!("rtmp://h/app/{MASK} and http://h/a")
        );
        assert_eq!(
            redactor.clean("x Authorization: Bearer abc.def\ny"),
            format!("x Authorization: {MASK}\ny")
        );
        assert_eq!(redactor.clean("plain text, 5 > 3"), "plain text, 5 > 3");
        let token = "corenvr_Zm9vYmFyYmF6cXV4MTIzNDU2Nzg5MA";
        assert_eq!(redactor.clean(&format!("({token})")), format!("(corenvr_{MASK})"));
        assert_eq!(
            redactor.clean("corenvr_camera_frames_damaged_total 5"),
            "corenvr_camera_frames_damaged_total 5"
        );
    }

    #[test]
    fn what_cannot_be_read_is_not_shown_and_short_secrets_spoil_nothing() {
        let mut redactor = Redactor::default();
        assert!(!redactor.configuration("password = \"hidden").contains("hidden"));
        let shown = redactor.configuration("[gb28181]\npassword = \"a\"\n");
        assert!(shown.contains(MASK));
        assert_eq!(redactor.clean("a cat"), "a cat");
    }
}
