//! Certificates of a configuration: what is found, what is said of their end, what is made.

use super::*;
use crate::doctor::Verdict;
use std::os::unix::fs::PermissionsExt;

fn made(dir: &Path, days: u16) -> self_signed::Made {
    self_signed::make(
        dir,
        &["nvr.example.org".into(), "192.0.2.7".into(), "2001:db8::7".into()],
        days,
    )
    .unwrap()
}

#[test]
fn what_is_made_is_read_back_and_fits() {
    let dir = tempfile::tempdir().unwrap();
    let made = made(dir.path(), 30);
    let facts = Facts::read(&made.der).unwrap();
    assert_eq!(facts.names, ["nvr.example.org", "192.0.2.7", "2001:db8::7"]);
    assert!(
        facts.self_signed && facts.subject.contains("CN=nvr.example.org"),
        "{facts:?}"
    );
    assert_eq!(facts.fingerprint, made.fingerprint);
    assert_eq!(facts.fingerprint.len(), 32 * 3 - 1);
    let identity = Identity::load(&made.cert, &made.key).unwrap();
    assert_eq!(identity.chain(), [made.der]);
    let mode = fs::metadata(&made.key).unwrap().permissions().mode() & 0o777;
    assert!(mode == 0o600 || (made.for_service && mode == 0o640), "{mode:o}");
    let again = self_signed::make(dir.path(), &[], 30).unwrap_err();
    assert!(matches!(again, self_signed::SelfSignedError::Exists(_)), "{again}");
}

#[test]
fn names_that_are_none_are_refused_before_anything_is_written() {
    let dir = tempfile::tempdir().unwrap();
    let long = "x".repeat(64);
    for wrong in ["", "a b", "https://nvr", "nvr:554", ".", "a..b", &long, "ü"] {
        let result = self_signed::make(dir.path(), &[wrong.to_owned()], 30);
        assert!(matches!(result, Err(self_signed::SelfSignedError::Name(_))), "{wrong}");
    }
    let many = vec!["a".to_owned(); 1000];
    assert!(matches!(
        self_signed::make(&dir.path().join("x"), &many, 1),
        Err(self_signed::SelfSignedError::TooManyNames)
    ));
    let names = self_signed::names_of_this_machine(&["nvr".into(), "localhost".into()]);
    assert_eq!(names[0], "nvr");
    assert_eq!(names.iter().filter(|n| *n == "localhost").count(), 1);
    assert!(names.iter().any(|n| n == "127.0.0.1"), "{names:?}");
}

#[test]
fn an_end_that_is_near_or_past_is_told_and_what_cannot_be_used_is_bad() {
    let dir = tempfile::tempdir().unwrap();
    let made = made(dir.path(), 30);
    let facts = Facts::read(&made.der).unwrap();
    let verdict = |now| {
        let found = of_files("[rtsp]", &made.cert, &made.key, now);
        (found[0].verdict, found[0].found.clone())
    };
    let day = SignedDuration::from_hours(24);
    assert_eq!(verdict(Timestamp::now()).0, Verdict::Good);
    assert_eq!(verdict(facts.not_after - day * 15).0, Verdict::Good);
    for (now, words) in [
        (facts.not_after - day * 13, "expires on"),
        (facts.not_after + day, "has expired"),
        (facts.not_before - day, "not valid before"),
    ] {
        let (verdict, found) = verdict(now);
        assert!(verdict == Verdict::Warning && found.contains(words), "{found}");
    }
    let missing = dir.path().join("missing.pem");
    let bad = &of_files("[http]", &made.cert, &missing, Timestamp::now())[0];
    assert!(
        bad.verdict == Verdict::Bad && bad.found.contains("missing.pem") && !bad.remedy.is_empty(),
        "{bad:?}"
    );
    fs::set_permissions(&made.key, fs::Permissions::from_mode(0o644)).unwrap();
    let found = of_files("[rtsp]", &made.cert, &made.key, Timestamp::now());
    assert!(
        found.len() == 2 && found[1].verdict == Verdict::Warning && found[1].remedy.contains("chmod 640"),
        "{found:?}"
    );
}

#[test]
fn a_configuration_without_tls_has_no_identities_and_no_findings() {
    let config = Config::default();
    let identities = Identities::load(&config);
    assert!(identities.rtsp.is_none() && identities.http.is_none());
    assert!(identities.problems().is_empty() && findings(&config).is_empty() && configured(&config).is_empty());
}

#[test]
fn a_broken_certificate_is_a_problem_until_it_is_read_again() {
    let dir = tempfile::tempdir().unwrap();
    let made = made(dir.path(), 5);
    let text = format!(
        "[http]\nhttps_listen = [\"127.0.0.1:8443\"]\ncert = \"{}\"\nkey = \"{}\"\n",
        made.cert.display(),
        made.key.display()
    );
    let config = crate::config::load_text(Path::new("t.toml"), &text).config;
    let whole = fs::read(&made.cert).unwrap();
    fs::write(&made.cert, &whole[..whole.len() / 2]).unwrap();
    let identities = Identities::load(&config);
    let problems = identities.problems();
    assert!(identities.http.is_some() && problems.len() == 1, "{problems:?}");
    assert!(
        problems[0].starts_with("[http] ") && problems[0].contains("nobody can connect"),
        "{problems:?}"
    );
    fs::write(&made.cert, whole).unwrap();
    corenvr_shard::run_control(identities.reload()).unwrap();
    let problems = identities.problems();
    assert!(
        problems.len() == 1 && problems[0].contains("expires on"),
        "{problems:?}"
    );
}

#[test]
fn a_certificate_from_outside_never_panics() {
    let dir = tempfile::tempdir().unwrap();
    let der = made(dir.path(), 30).der;
    for len in 0..der.len() {
        assert!(Facts::read(&der[..len]).is_err());
    }
    for at in 0..der.len() {
        let mut damaged = der.clone();
        damaged[at] ^= 0x55;
        drop(Facts::read(&damaged));
    }
}
