//! A strict reader of Prometheus' text format 0.0.4: panics at whatever a scraper might take amiss.

use std::collections::{BTreeMap, BTreeSet};

/// One sample.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The name as written, with `_bucket` and its kin.
    pub name: String,
    /// The labels.
    pub labels: BTreeMap<String, String>,
    /// The value.
    pub value: f64,
}

/// A family.
#[derive(Debug, Clone, Default)]
pub struct Family {
    /// `counter`, `gauge` or `histogram`.
    pub kind: String,
    /// Its samples.
    pub samples: Vec<Sample>,
}

/// All families of an exposition.
#[derive(Debug, Clone, Default)]
pub struct Metrics(pub BTreeMap<String, Family>);

impl Metrics {
    /// Reads a whole exposition.
    pub fn parse(text: &str) -> Self {
        assert!(
            text.ends_with('\n') && !text.contains("\n\n") && !text.contains('\r'),
            "line ends"
        );
        let mut all = Self::default();
        let (mut helped, mut current): (Option<String>, Option<String>) = (None, None);
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, help) = help.split_once(' ').unwrap_or_else(|| panic!("no help: {line}"));
                assert!(is_name(name) && help.len() > 5, "{line}");
                assert!(helped.is_none(), "HELP without TYPE before {line}");
                helped = Some(name.to_owned());
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap_or_else(|| panic!("no type: {line}"));
                assert_eq!(helped.take().as_deref(), Some(name), "TYPE without HELP");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                let family = Family {
                    kind: kind.to_owned(),
                    samples: Vec::new(),
                };
                assert!(all.0.insert(name.to_owned(), family).is_none(), "{name} comes twice");
                current = Some(name.to_owned());
            } else {
                assert!(helped.is_none() && !line.starts_with('#'), "{line}");
                let name = current.as_ref().unwrap_or_else(|| panic!("no family: {line}"));
                let family = all.0.get_mut(name).unwrap();
                let sample = sample(line);
                let ending = sample.name.strip_prefix(name.as_str());
                let endings: &[&str] = if family.kind == "histogram" {
                    &["_bucket", "_sum", "_count"]
                } else {
                    &[""]
                };
                assert!(ending.is_some_and(|e| endings.contains(&e)), "{line} is not of {name}");
                assert!(family.kind == "gauge" || sample.value >= 0.0, "{line}");
                family.samples.push(sample);
            }
        }
        all.0.iter().for_each(|(name, family)| check(name, family));
        all
    }

    /// The value of the one sample that has all of these labels.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let has = |s: &&Sample| labels.iter().all(|(k, v)| s.labels.get(*k).is_some_and(|x| x == v));
        let family = self.0.get(name).unwrap_or_else(|| panic!("there is no {name}"));
        let found: Vec<_> = family.samples.iter().filter(has).collect();
        assert!(found.len() <= 1, "{name} {labels:?} is not one sample");
        found.first().map(|s| s.value)
    }

    /// Whether a family of this name is there; endings of histograms are understood.
    pub fn has(&self, name: &str) -> bool {
        let endings = ["_bucket", "_sum", "_count"];
        let base = |e: &&str| {
            name.strip_suffix(*e)
                .and_then(|b| self.0.get(b))
                .is_some_and(|f| f.kind == "histogram")
        };
        self.0.contains_key(name) || endings.iter().any(base)
    }
}

fn check(name: &str, family: &Family) {
    let mut seen = BTreeSet::new();
    for s in &family.samples {
        assert!(
            seen.insert((s.name.clone(), s.labels.clone())),
            "{name}: {s:?} comes twice"
        );
    }
    if family.kind != "histogram" {
        return;
    }
    let mut series: BTreeMap<BTreeMap<String, String>, Vec<(f64, f64)>> = BTreeMap::new();
    for s in family.samples.iter().filter(|s| s.name.ends_with("_bucket")) {
        let mut labels = s.labels.clone();
        let bound = number(&labels.remove("le").unwrap_or_else(|| panic!("{name}: no le")));
        series.entry(labels).or_default().push((bound, s.value));
    }
    for (labels, buckets) in series {
        assert!(
            buckets.windows(2).all(|w| w[0].0 < w[1].0 && w[0].1 <= w[1].1),
            "{name}: {buckets:?}"
        );
        let last = buckets.last().unwrap();
        let count = family
            .samples
            .iter()
            .find(|s| s.name.ends_with("_count") && s.labels == labels);
        assert!(
            last.0.is_infinite() && count.is_some_and(|c| c.value.to_bits() == last.1.to_bits()),
            "{name}: {labels:?}"
        );
        assert!(
            family
                .samples
                .iter()
                .any(|s| s.name.ends_with("_sum") && s.labels == labels)
        );
    }
}

fn is_name(name: &str) -> bool {
    let first = name.chars().next().is_some_and(|c| c.is_ascii_lowercase());
    first
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
}

fn number(text: &str) -> f64 {
    match text {
        "+Inf" => f64::INFINITY,
        text => text.parse().unwrap_or_else(|e| panic!("{text}: {e}")),
    }
}

fn sample(line: &str) -> Sample {
    let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("{line}"));
    let (name, mut rest) = line.split_at(end);
    assert!(is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = inner;
        loop {
            let (key, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}"));
            assert!(is_name(key), "{line}");
            let mut value = String::new();
            let mut chars = after.char_indices();
            let end = loop {
                match chars.next().unwrap_or_else(|| panic!("no end: {line}")) {
                    (i, '"') => break i,
                    (_, '\\') => match chars.next() {
                        Some((_, 'n')) => value.push('\n'),
                        Some((_, c @ ('\\' | '"'))) => value.push(c),
                        other => panic!("{other:?} is not escaped: {line}"),
                    },
                    (_, c) => value.push(c),
                }
            };
            assert!(labels.insert(key.to_owned(), value).is_none(), "{line}");
            rest = &after[end + 1..];
            match rest.strip_prefix(',') {
                Some(more) => rest = more,
                None => break,
            }
        }
        rest = rest.strip_prefix('}').unwrap_or_else(|| panic!("{line}"));
    }
    let value = rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}"));
    Sample {
        name: name.to_owned(),
        labels,
        value: number(value),
    }
}
