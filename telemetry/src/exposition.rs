//! Metrics as text: read from the OpenMetrics format, in which the host keeps them, and rewritten for older readers.

/// A metric with all its series.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Family {
    pub name: String,
    pub help: String,
    /// `counter`, `gauge`, `histogram` or another.
    pub kind: String,
    pub samples: Vec<Sample>,
}

/// One line of a family.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Sample {
    /// The line's name: the family's with a suffix.
    pub name: String,
    pub labels: Vec<(String, String)>,
    pub value: f64,
    pub exemplar: Option<Exemplar>,
}

/// One measurement of many, with the trace that it was made in.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Exemplar {
    pub labels: Vec<(String, String)>,
    pub value: f64,
    /// Seconds since the Unix epoch.
    pub time: Option<f64>,
}

/// Reads the OpenMetrics text format as the host writes it; lines that are not of it are passed over.
pub(crate) fn parse(text: &str) -> Vec<Family> {
    let mut families: Vec<Family> = Vec::new();
    for line in text.lines() {
        if let Some((keyword, name, rest)) = meta(line) {
            if families.last().is_none_or(|family| family.name != name) {
                families.push(Family {
                    name: name.to_owned(),
                    ..Family::default()
                });
            }
            let family = families.last_mut().expect("one was just pushed");
            match keyword {
                "HELP" => rest.clone_into(&mut family.help),
                "TYPE" => rest.clone_into(&mut family.kind),
                _ => {}
            }
        } else if !line.starts_with('#')
            && let (Some(sample), Some(family)) = (sample(line), families.last_mut())
            && sample.name.starts_with(&family.name)
        {
            family.samples.push(sample);
        }
    }
    families
}

/// `# KEYWORD name rest`.
fn meta(line: &str) -> Option<(&str, &str, &str)> {
    let mut words = line.strip_prefix("# ")?.splitn(3, ' ');
    Some((
        words.next()?,
        words.next()?,
        words.next().unwrap_or_default(),
    ))
}

fn sample(line: &str) -> Option<Sample> {
    let end = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = labels(rest)?;
    let (measured, exemplar) = match rest.split_once(" # ") {
        Some((measured, exemplar)) => (measured, Some(exemplar)),
        None => (rest, None),
    };
    Some(Sample {
        name: name.to_owned(),
        labels,
        value: number(measured.split_whitespace().next()?)?,
        exemplar: exemplar.and_then(self::exemplar),
    })
}

fn exemplar(text: &str) -> Option<Exemplar> {
    let (labels, rest) = labels(text)?;
    let mut numbers = rest.split_whitespace();
    Some(Exemplar {
        labels,
        value: number(numbers.next()?)?,
        time: numbers.next().and_then(number),
    })
}

fn number(text: &str) -> Option<f64> {
    match text {
        "+Inf" => Some(f64::INFINITY),
        "-Inf" => Some(f64::NEG_INFINITY),
        text => text.parse().ok(),
    }
}

/// Names with values.
type Labels = Vec<(String, String)>;

/// The labels that `text` may begin with, and what follows them.
fn labels(text: &str) -> Option<(Labels, &str)> {
    let Some(mut rest) = text.strip_prefix('{') else {
        return Some((Vec::new(), text));
    };
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start_matches(',');
        if let Some(rest) = rest.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (name, quoted) = rest.split_once("=\"")?;
        let (value, after) = unquoted(quoted)?;
        labels.push((name.to_owned(), value));
        rest = after;
    }
}

/// A value up to its closing quote, and what follows.
fn unquoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((index, character)) = characters.next() {
        match character {
            '"' => return Some((value, &text[index + 1..])),
            '\\' => value.push(match characters.next()?.1 {
                'n' => '\n',
                other => other,
            }),
            other => value.push(other),
        }
    }
    None
}

/// The same metrics in Prometheus' text format 0.0.4, which knows neither units nor exemplars nor an end, and in which a
/// counter's name ends as its series' do.
pub fn to_prometheus(open_metrics: &str) -> String {
    let mut text = String::with_capacity(open_metrics.len());
    let counters: Vec<&str> = open_metrics
        .lines()
        .filter_map(|line| {
            meta(line).filter(|(keyword, _, kind)| *keyword == "TYPE" && *kind == "counter")
        })
        .map(|(_, name, _)| name)
        .collect();
    for line in open_metrics.lines() {
        match meta(line) {
            Some((keyword @ ("HELP" | "TYPE"), name, rest)) => {
                let suffix = if counters.contains(&name) {
                    "_total"
                } else {
                    ""
                };
                let rest = if rest == "unknown" { "untyped" } else { rest };
                text += &format!("# {keyword} {name}{suffix} {rest}\n");
            }
            Some(_) => {}
            None if line.starts_with('#') || line.is_empty() => {}
            None => {
                text += without_exemplar(line);
                text.push('\n');
            }
        }
    }
    text
}

/// A sample's line up to its exemplar. A label's value may hold ` # ` too.
fn without_exemplar(line: &str) -> &str {
    let end_of_name = line.find(['{', ' ']).unwrap_or(line.len());
    let Some((_, rest)) = labels(&line[end_of_name..]) else {
        return line;
    };
    let measured = rest.find(" # ").unwrap_or(rest.len());
    &line[..line.len() - rest.len() + measured]
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "# HELP made Made, with ä.\n# TYPE made counter\nmade_total{a=\"x # \\\"}\",b=\"\"} 3\n\
        # HELP took_seconds Took.\n# TYPE took_seconds histogram\n# UNIT took_seconds seconds\n\
        took_seconds_sum 0.5\ntook_seconds_count 2\n\
        took_seconds_bucket{le=\"0.1\"} 1 # {trace_id=\"0af7\"} 0.07 1700000000.5\ntook_seconds_bucket{le=\"+Inf\"} 2\n# EOF\n";

    #[test]
    fn families_are_read_with_labels_and_exemplars() {
        let families = parse(TEXT);
        assert_eq!(families.len(), 2);
        let made = &families[0];
        assert_eq!(
            (made.kind.as_str(), made.help.as_str()),
            ("counter", "Made, with ä.")
        );
        assert_eq!(made.samples[0].labels[0].1, "x # \"}");
        let bucket = &families[1].samples[2];
        let exemplar = bucket.exemplar.as_ref().unwrap();
        assert_eq!(exemplar.labels[0].1, "0af7");
        assert_eq!(exemplar.time, Some(1_700_000_000.5));
        assert!(families[1].samples[3].exemplar.is_none());
    }

    #[test]
    fn older_readers_get_what_they_know() {
        let text = to_prometheus(TEXT);
        assert!(
            text.contains("# TYPE made_total counter\nmade_total{a=\"x # \\\"}\",b=\"\"} 3\n"),
            "{text}"
        );
        assert!(
            text.contains("took_seconds_bucket{le=\"0.1\"} 1\n"),
            "{text}"
        );
        assert!(!text.contains("EOF") && !text.contains("UNIT"), "{text}");
    }

    #[test]
    fn nonsense_is_passed_over() {
        for text in [
            "{", "a{", "a{b", "a{b=\"", "a{b=\"\\", "a x", "# TYPE", "a 1", "\n\n",
        ] {
            assert!(
                parse(text).iter().all(|family| family.samples.is_empty()),
                "{text}"
            );
            to_prometheus(text);
        }
    }
}
