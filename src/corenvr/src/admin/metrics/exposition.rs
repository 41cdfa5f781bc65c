//! Prometheus' text format 0.0.4: families with HELP and TYPE, samples with escaped labels.
//! <https://prometheus.io/docs/instrumenting/exposition_formats/>

use std::fmt::Write as _;

/// What a metric is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, but for restarts. Its name ends in `_total`.
    Counter,
    /// Rises and falls.
    Gauge,
    /// Counts by class of size.
    Histogram,
}

/// A text that grows by families.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
}

/// A family whose samples are being written.
pub struct Family<'a> {
    text: &'a mut String,
    name: &'static str,
}

impl Exposition {
    /// Begins a family; all of its samples come before the next one begins.
    pub fn family(&mut self, name: &'static str, kind: Kind, help: &str) -> Family<'_> {
        let word = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        self.text.push_str("# HELP ");
        self.text.push_str(name);
        self.text.push(' ');
        escape(&mut self.text, help, false);
        let _ = write!(self.text, "\n# TYPE {name} {word}\n");
        Family {
            text: &mut self.text,
            name,
        }
    }

    /// A family of one sample without labels.
    pub fn single(&mut self, name: &'static str, kind: Kind, help: &str, value: f64) {
        self.family(name, kind, help).sample(&[], value);
    }

    /// All of it.
    pub fn finish(self) -> String {
        self.text
    }
}

impl Family<'_> {
    /// A sample.
    pub fn sample(&mut self, labels: &[(&str, &str)], value: f64) {
        self.line("", labels, value);
    }

    /// The samples of a histogram. `classes` counts per class, not summed up; the last class has no bound.
    pub fn histogram(&mut self, labels: &[(&str, &str)], bounds: &[f64], classes: &[u64], sum: f64) {
        let mut all = 0;
        for (i, count) in classes.iter().enumerate() {
            all += count;
            let bound = bounds.get(i).map_or_else(|| "+Inf".to_owned(), |b| number(*b));
            let labels = [labels, &[("le", bound.as_str())]].concat();
            self.line("_bucket", &labels, all as f64);
        }
        self.line("_sum", labels, sum);
        self.line("_count", labels, all as f64);
    }

    fn line(&mut self, ending: &str, labels: &[(&str, &str)], value: f64) {
        self.text.push_str(self.name);
        self.text.push_str(ending);
        for (i, (key, value)) in labels.iter().enumerate() {
            self.text.push(if i == 0 { '{' } else { ',' });
            self.text.push_str(key);
            self.text.push_str("=\"");
            escape(self.text, value, true);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {}", number(value));
    }
}

fn number(value: f64) -> String {
    if value.is_nan() {
        "NaN".to_owned()
    } else if value.is_infinite() {
        if value > 0.0 { "+Inf" } else { "-Inf" }.to_owned()
    } else {
        value.to_string()
    }
}

/// Quotes are escaped in the values of labels alone.
fn escape(out: &mut String, text: &str, quotes: bool) {
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '"' if quotes => out.push_str("\\\""),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn families_labels_and_numbers_are_written_as_the_format_wants() {
        let mut e = Exposition::default();
        e.single("up_seconds", Kind::Gauge, "Back\\slash and\nline, \"quoted\".", 1.5);
        let mut family = e.family("disk_bytes", Kind::Gauge, "Bytes.");
        family.sample(&[("path", "/a \"b\"\\c\nd"), ("x", "1")], 1e15);
        family.sample(&[("path", "/e")], f64::INFINITY);
        e.family("took_seconds", Kind::Histogram, "Time.").histogram(
            &[("path", "/a")],
            &[0.001, 2.5],
            &[1, 0, 2],
            9.25,
        );
        let wanted = "# HELP up_seconds Back\\\\slash and\\nline, \"quoted\".\n# TYPE up_seconds gauge\nup_seconds 1.5\n\
            # HELP disk_bytes Bytes.\n# TYPE disk_bytes gauge\n\
            disk_bytes{path=\"/a \\\"b\\\"\\\\c\\nd\",x=\"1\"} 1000000000000000\ndisk_bytes{path=\"/e\"} +Inf\n\
            # HELP took_seconds Time.\n# TYPE took_seconds histogram\n\
            took_seconds_bucket{path=\"/a\",le=\"0.001\"} 1\ntook_seconds_bucket{path=\"/a\",le=\"2.5\"} 1\n\
            took_seconds_bucket{path=\"/a\",le=\"+Inf\"} 3\ntook_seconds_sum{path=\"/a\"} 9.25\ntook_seconds_count{path=\"/a\"} 3\n";
        assert_eq!(e.finish(), wanted);
    }
}
