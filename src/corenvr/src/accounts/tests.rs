//! Accounts as a whole: the first start, proofs, rights, and what is on disk.

use std::{
    fs,
    net::IpAddr,
    os::unix::fs::PermissionsExt,
    path::Path,
    time::{Duration, Instant},
};

use corenvr_media::CameraName;
use corenvr_playback::{Access, Action as Watching, Gate};
use corenvr_proto::auth::{Authenticator, ConnectionLogin, Credentials, Verdict, parse_challenges, throttle};

use super::{
    audit::{Action, Filter, Outcome},
    *,
};

const PEER: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7));
const PASSWORD: &str = "correct horse";

fn open(dir: &Path) -> Arc<Accounts> {
    Accounts::open(dir, Anonymous::default(), Audit::open(dir).unwrap()).unwrap()
}

fn new(name: &str, role: Role, grants: &[&str]) -> NewAccount {
    NewAccount {
        name: name.into(),
        password: PASSWORD.into(),
        role,
        grants: grants.iter().map(|g| Grant::parse(g).unwrap()).collect(),
        enabled: true,
    }
}

fn camera(name: &str) -> CameraName {
    CameraName::new(name).unwrap()
}

fn user(name: &str) -> Who {
    Who::User(name.into())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

fn actions(accounts: &Accounts) -> Vec<(Action, Outcome, String)> {
    let filter = Filter {
        limit: 100,
        ..Filter::default()
    };
    let page = accounts.audit().read(&filter).unwrap();
    page.entries
        .into_iter()
        .map(|e| (e.action, e.outcome, e.detail))
        .collect()
}

#[test]
fn the_first_start_makes_an_administrator_whose_password_is_in_a_file_until_it_changes() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = open(dir.path());
    let file = dir.path().join("admin-password");
    let password = fs::read_to_string(&file).unwrap();
    let password = password.trim();
    assert_eq!((mode(&file), mode(&dir.path().join("accounts.json"))), (0o600, 0o600));
    let session = accounts.login(PEER, Via::Https, "admin", password).unwrap();
    let who = accounts.by_session(&session.id).unwrap();
    assert_eq!((who.clone(), accounts.role(&who)), (user("admin"), Some(Role::Admin)));
    drop(accounts);

    let accounts = open(dir.path());
    assert_eq!(
        accounts.by_session(&session.id),
        None,
        "sessions do not survive a restart"
    );
    accounts.login(PEER, Via::Https, "admin", password).unwrap();
    let change = Change {
        password: Some(PASSWORD.into()),
        ..Change::default()
    };
    accounts.change("admin", change).unwrap();
    assert!(!file.exists());
    assert_eq!(
        accounts.login(PEER, Via::Https, "admin", password).unwrap_err(),
        LoginError::Wrong
    );
    accounts.login(PEER, Via::Https, "admin", PASSWORD).unwrap();
}

#[test]
fn two_installations_share_nothing() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (first, second) = (open(one.path()), open(two.path()));
    let password = |dir: &Path| fs::read_to_string(dir.join("admin-password")).unwrap();
    assert_ne!(password(one.path()), password(two.path()));
    assert_ne!(first.realm, second.realm);
    assert!(first.realm.starts_with("corenvr-") && first.realm.len() == "corenvr-12345678".len());
    let hash = |a: &Accounts| a.state().contents.accounts[0].ha1_md5.clone();
    assert_ne!(hash(&first), hash(&second));
}

#[test]
fn no_secret_is_in_the_file_in_clear() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = open(dir.path());
    accounts.add(new("anna", Role::Viewer, &[])).unwrap();
    let token = accounts.add_token("anna", "script", None).unwrap();
    let session = accounts.login(PEER, Via::Http, "anna", PASSWORD).unwrap();
    accounts.audit().flush();
    for entry in fs::read_dir(dir.path()).unwrap() {
        let path = entry.unwrap().path();
        let text = fs::read_to_string(&path).unwrap();
        for secret in [PASSWORD, &token.token, &session.id] {
            assert!(!text.contains(secret), "{}", path.display());
        }
    }
    let shown = format!("{accounts:?} {token:?} {session:?}");
    assert!(!shown.contains(&token.token) && !shown.contains(&session.id));
}

#[test]
fn a_damaged_file_is_refused_and_left_alone() {
    let dir = tempfile::tempdir().unwrap();
    drop(open(dir.path()));
    let path = dir.path().join("accounts.json");
    let good = fs::read_to_string(&path).unwrap();
    let audit = || Audit::open(dir.path()).unwrap();
    for bad in [
        String::new(),
        "{}".into(),
        good[..good.len() / 2].to_owned(),
        good.replace("\"format\": 1", "\"format\": 2"),
        good.replace("\"admin\"", "\"Admin\""),
        good.replace("$argon2id$", "$1$"),
        good.replace("\"enabled\"", "\"enabled_\""),
        good.replace("\"ha1_md5\": \"", "\"ha1_md5\": \"x"),
    ] {
        assert_ne!(bad, good);
        fs::write(&path, &bad).unwrap();
        let error = Accounts::open(dir.path(), Anonymous::default(), audit()).unwrap_err();
        assert!(matches!(error, OpenError::Damaged { .. }), "{error}");
        let text = error.to_string();
        assert!(text.contains("accounts.json") && text.contains("Remedy"), "{text}");
        assert!(!text.contains("argon2id$v"), "{text}");
        assert_eq!(fs::read_to_string(&path).unwrap(), bad);
    }
    fs::write(&path, good).unwrap();
    drop(open(dir.path()));
}

#[test]
fn two_processes_do_not_share_the_file() {
    let dir = tempfile::tempdir().unwrap();
    let first = open(dir.path());
    let second = Accounts::open(dir.path(), Anonymous::default(), Audit::open(dir.path()).unwrap());
    assert!(matches!(second, Err(OpenError::InUse { .. })));
    drop(first);
    drop(open(dir.path()));
}

#[test]
fn the_gate_denies_unless_something_allows() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = open(dir.path());
    accounts.add(new("view", Role::Viewer, &["door:live"])).unwrap();
    accounts.add(new("oper", Role::Operator, &[])).unwrap();
    let (door, yard, unknown) = (camera("door"), camera("yard"), camera("no-such-camera"));
    let ask = |who: &Who, right, camera| accounts.allows(who, right, camera);
    let all = [
        Right::Live,
        Right::Playback,
        Right::Export,
        Right::Control,
        Right::Status,
        Right::Configure,
        Right::Accounts,
        Right::Audit,
    ];
    for right in all {
        for camera in [None, Some(&door)] {
            assert_eq!(ask(&Who::Nobody, right, camera), Access::NeedLogin);
            assert_eq!(ask(&user("gone"), right, camera), Access::NeedLogin);
            assert_eq!(ask(&Who::Local, right, camera), Access::Allow);
            assert_eq!(ask(&user("admin"), right, camera), Access::Allow);
        }
    }
    let view = user("view");
    assert_eq!(ask(&view, Right::Live, Some(&door)), Access::Allow);
    assert_eq!(ask(&view, Right::Playback, Some(&door)), Access::Forbid);
    assert_eq!(
        ask(&view, Right::Live, Some(&yard)),
        ask(&view, Right::Live, Some(&unknown))
    );
    assert_eq!(ask(&view, Right::Live, Some(&yard)), Access::Forbid);
    assert_eq!(ask(&view, Right::Status, None), Access::Allow);
    assert_eq!(ask(&view, Right::Status, Some(&yard)), Access::Forbid);
    assert_eq!(ask(&user("oper"), Right::Control, Some(&yard)), Access::Allow);
    assert_eq!(ask(&user("oper"), Right::Configure, Some(&yard)), Access::Forbid);
    accounts.set_anonymous(Anonymous {
        live: true,
        playback: false,
    });
    assert_eq!(ask(&Who::Nobody, Right::Live, Some(&yard)), Access::Allow);
    assert_eq!(ask(&view, Right::Live, Some(&yard)), Access::Allow, "as for anybody");
    assert_eq!(ask(&Who::Nobody, Right::Playback, Some(&yard)), Access::NeedLogin);
    assert_eq!(ask(&Who::Nobody, Right::Status, None), Access::NeedLogin);
}

#[test]
fn sessions_end_with_what_they_stand_for() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = open(dir.path());
    accounts.add(new("anna", Role::Viewer, &[])).unwrap();
    let login = || accounts.login(PEER, Via::Http, "anna", PASSWORD).unwrap().id;
    let alive = |id: &str| accounts.by_session(id).is_some();
    let change = |change: Change| accounts.change("anna", change).unwrap();
    let id = login();
    change(Change {
        grants: Some(vec![Grant::parse("door:live").unwrap()]),
        ..Change::default()
    });
    assert!(alive(&id), "grants are asked anew each time");
    change(Change {
        role: Some(Role::Operator),
        ..Change::default()
    });
    assert!(!alive(&id));
    let id = login();
    change(Change {
        password: Some(PASSWORD.into()),
        ..Change::default()
    });
    assert!(!alive(&id));
    let id = login();
    change(Change {
        enabled: Some(false),
        ..Change::default()
    });
    assert!(!alive(&id));
    assert_eq!(
        accounts.login(PEER, Via::Http, "anna", PASSWORD).unwrap_err(),
        LoginError::Wrong
    );
    change(Change {
        enabled: Some(true),
        ..Change::default()
    });
    assert!(!alive(&id), "what has ended stays so");
    let id = login();
    accounts.remove("anna").unwrap();
    accounts.add(new("anna", Role::Viewer, &[])).unwrap();
    assert!(!alive(&id), "another account of that name");
    let id = login();
    assert_eq!(accounts.logout(&id), Some(user("anna")));
    assert!(!alive(&id) && accounts.logout(&id).is_none());
    assert!(!alive("") && !alive("x"));
}

#[test]
fn tokens_are_shown_once_and_end_when_they_are_due_or_removed() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = open(dir.path());
    accounts.add(new("anna", Role::Viewer, &[])).unwrap();
    let ask = |token: &str| accounts.by_token(PEER, Via::Http, token);
    let soon = WallTime::from_millis(now().as_millis() + 300);
    let forever = accounts.add_token("anna", " script ", None).unwrap();
    let short = accounts.add_token("anna", "short", Some(soon)).unwrap();
    assert_eq!(forever.view.label, "script");
    assert!(forever.token.starts_with("corenvr_"));
    assert_eq!(ask(&forever.token), Ok(user("anna")));
    assert_eq!(ask(&short.token), Ok(user("anna")));
    std::thread::sleep(Duration::from_millis(400));
    assert_eq!(ask(&short.token), Err(LoginError::Wrong));
    let used = |accounts: &Accounts| accounts.tokens("anna").unwrap()[0].last_used;
    assert!(used(&accounts).is_some());
    accounts.write_last_uses().unwrap();
    let seen = used(&accounts);
    drop(accounts);
    let accounts = open(dir.path());
    assert_eq!(used(&accounts), seen);
    let ask = |token: &str| accounts.by_token(PEER, Via::Http, token);
    assert_eq!(ask(&forever.token), Ok(user("anna")));
    let change = |enabled| {
        let change = Change {
            enabled: Some(enabled),
            ..Change::default()
        };
        accounts.change("anna", change).unwrap();
    };
    change(false);
    assert_eq!(ask(&forever.token), Err(LoginError::Wrong));
    change(true);
    accounts.remove_token("anna", &forever.view.id).unwrap();
    assert_eq!(ask(&forever.token), Err(LoginError::Wrong));
    assert!(matches!(
        accounts.remove_token("anna", &forever.view.id),
        Err(AccountError::NoSuchToken(_))
    ));
    assert!(accounts.add_token("anna", "", None).is_err());
    assert!(
        accounts
            .add_token("anna", "late", Some(WallTime::from_millis(1)))
            .is_err()
    );
    // Whoever tries tokens has to wait like others.
    let tries = (0..2 * throttle::NETWORK_FREE).map(|n| ask(&format!("corenvr_{n}")));
    assert!(
        tries
            .into_iter()
            .any(|t| matches!(t, Err(LoginError::Throttled { .. })))
    );
}

#[test]
fn the_last_administrator_stays() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = open(dir.path());
    accounts.add(new("anna", Role::Operator, &[])).unwrap();
    let disable = || Change {
        enabled: Some(false),
        ..Change::default()
    };
    let demote = Change {
        role: Some(Role::Viewer),
        ..Change::default()
    };
    let last = |r: Result<(), AccountError>| matches!(r, Err(AccountError::LastAdmin(_)));
    assert!(last(accounts.remove("admin")));
    assert!(last(accounts.change("admin", disable()).map(drop)));
    assert!(last(accounts.change("admin", demote).map(drop)));
    let promote = Change {
        role: Some(Role::Admin),
        ..Change::default()
    };
    accounts.change("anna", promote).unwrap();
    accounts.change("anna", disable()).unwrap();
    assert!(last(accounts.remove("admin")), "one who cannot log in is none");
    let enable = Change {
        enabled: Some(true),
        ..Change::default()
    };
    accounts.change("anna", enable).unwrap();
    accounts.remove("admin").unwrap();
    assert!(!dir.path().join("admin-password").exists());
    let left: Vec<_> = accounts.list().into_iter().map(|a| a.name).collect();
    assert_eq!(left, ["anna"]);
}

#[test]
fn what_breaks_a_rule_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = open(dir.path());
    accounts.add(new("anna", Role::Viewer, &["door:live"])).unwrap();
    let before = fs::read(dir.path().join("accounts.json")).unwrap();
    assert!(matches!(
        accounts.add(new("anna", Role::Viewer, &[])),
        Err(AccountError::Exists(_))
    ));
    assert!(accounts.add(new("Anna", Role::Viewer, &[])).is_err());
    assert!(accounts.add(new("bert", Role::Viewer, &["*:export"])).is_err());
    let short = Change {
        password: Some("short".into()),
        ..Change::default()
    };
    assert!(accounts.change("anna", short).is_err());
    let grants = Change {
        role: Some(Role::Admin),
        grants: Some(vec![Grant::parse("*:live").unwrap()]),
        ..Change::default()
    };
    assert!(accounts.change("anna", grants).is_err());
    for missing in ["bert", "", "../x"] {
        assert!(matches!(
            accounts.change(missing, Change::default()),
            Err(AccountError::NoSuchAccount(_))
        ));
        assert!(accounts.remove(missing).is_err() && accounts.tokens(missing).is_err());
        assert!(accounts.add_token(missing, "x", None).is_err());
    }
    assert_eq!(fs::read(dir.path().join("accounts.json")).unwrap(), before);
}

#[test]
fn guessing_is_slowed_and_written_down_without_what_was_typed() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = open(dir.path());
    let guess = |name: &str| accounts.login(PEER, Via::Http, name, "wrong wrong").unwrap_err();
    for _ in 0..throttle::PAIR_FREE {
        assert_eq!(guess("admin"), LoginError::Wrong);
    }
    assert!(matches!(guess("admin"), LoginError::Throttled { retry_after } if retry_after <= throttle::DELAY_MIN));
    assert_eq!(guess("my secret by mistake"), LoginError::Wrong);
    let told = actions(&accounts);
    assert_eq!(told.len(), throttle::PAIR_FREE as usize + 1, "waiting is not a guess");
    assert!(
        told.iter()
            .all(|t| (t.0, t.1) == (Action::LoginRefused, Outcome::Refused))
    );
    assert_eq!(told[0].2, "as an unknown name");
    assert!(told[1].2.starts_with("as admin; has to wait"), "{}", told[1].2);
}

#[test]
fn a_name_that_is_not_there_takes_as_long_as_one_that_is() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = open(dir.path());
    let time = |name: &str| {
        let begun = Instant::now();
        drop(accounts.login(PEER, Via::Http, name, "wrong wrong"));
        begun.elapsed()
    };
    let best = |name: &str| (0..4).map(|_| time(name)).min().unwrap_or_default();
    let (known, unknown) = (best("admin"), best("nobody"));
    assert!(unknown * 4 > known && known * 4 > unknown, "{known:?} {unknown:?}");
}

#[test]
fn rtsp_asks_the_same_accounts_by_digest() {
    let dir = tempfile::tempdir().unwrap();
    let accounts = open(dir.path());
    accounts.add(new("anna", Role::Viewer, &[])).unwrap();
    let verifier = accounts.verifier();
    let now = Instant::now();
    let uri = "rtsp://h/door";
    let offered = verifier.challenges(now, PEER, false);
    assert!(
        offered.iter().all(|c| c.starts_with("Digest")),
        "Basic is the password in clear"
    );
    let ask = |password: &str, offer: &str| {
        let mut client = Authenticator::new(Some(Credentials::new("anna", password)), [3; 16]);
        client.challenged(parse_challenges(std::iter::once(offer))).unwrap();
        let header = client.authorize("DESCRIBE", uri);
        let mut login = ConnectionLogin::default();
        verifier.verify(now, PEER, &mut login, "DESCRIBE", uri, header.as_deref())
    };
    for offer in &offered {
        assert_eq!(ask(PASSWORD, offer), Verdict::User("anna".into()));
        assert_eq!(ask("wrong", offer), Verdict::Refused);
    }
    let basic = Some("Basic YW5uYTpjb3JyZWN0IGhvcnNl");
    let mut login = ConnectionLogin::default();
    assert_eq!(
        verifier.verify(now, PEER, &mut login, "DESCRIBE", uri, basic),
        Verdict::Refused
    );
    let before = (accounts.generation(), accounts.credential("anna"));
    let access = || accounts.access(Some("anna"), Watching::Live, &camera("door"));
    assert_eq!(access(), Access::Allow);
    let disable = Change {
        enabled: Some(false),
        ..Change::default()
    };
    accounts.change("anna", disable).unwrap();
    assert_ne!(before.0, accounts.generation());
    assert_ne!(before.1, accounts.credential("anna"));
    assert_eq!(access(), Access::NeedLogin);
    assert_eq!(ask(PASSWORD, &offered[0]), Verdict::Refused);
    let told: Vec<_> = actions(&accounts).into_iter().map(|a| a.0).collect();
    assert_eq!(told.iter().filter(|a| **a == Action::Login).count(), 2, "{told:?}");
}
