//! YAML as the users of the files read it: libyaml's events, which go-yaml's parser is a port of, and nothing from the
//! engine's own parser. Flattened to one leaf for each node, so that two texts can be compared place by place.

use std::collections::BTreeMap;

use libyaml_safer::{EventData, MappingStyle, Parser, ScalarStyle, SequenceStyle};

/// Between the steps of a place; no key of a test holds it.
const STEP: char = '/';

/// One node of a stream, and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Leaf {
    /// Which document, counted from 0.
    pub(crate) document: usize,
    /// `spec/template/spec/containers/0/image`; the document itself is the empty place.
    pub(crate) place: String,
    pub(crate) meaning: Meaning,
    pub(crate) anchor: Option<String>,
    pub(crate) tag: Option<String>,
    /// Of the value; counted from 0, columns in characters.
    pub(crate) line: usize,
    pub(crate) end_line: usize,
    pub(crate) columns: std::ops::Range<usize>,
    pub(crate) style: Style,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Single,
    Double,
    Block,
    Collection,
}

/// What a node is to a reader.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Meaning {
    Text(String),
    /// A number, a boolean, a date, null: by the rules of YAML 1.1, of YAML 1.2 or of go-yaml.
    Other(String),
    Alias(String),
    List {
        flow: bool,
    },
    Map {
        flow: bool,
    },
    /// Whether `---` and `...` stand around the document.
    Document {
        start: bool,
        end: bool,
    },
}

/// Wherever they stand and however they are quoted.
impl PartialEq for Leaf {
    fn eq(&self, other: &Self) -> bool {
        self.document == other.document
            && self.place == other.place
            && self.meaning == other.meaning
            && self.anchor == other.anchor
            && self.tag == other.tag
    }
}

impl Leaf {
    /// The text of a string; `None` for a number or anything else.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.meaning {
            Meaning::Text(text) => Some(text),
            _ => None,
        }
    }

    /// As written, whatever it means.
    pub(crate) fn scalar(&self) -> Option<&str> {
        match &self.meaning {
            Meaning::Text(text) | Meaning::Other(text) => Some(text),
            _ => None,
        }
    }

    /// The last step of its place.
    pub(crate) fn key(&self) -> &str {
        self.place.rsplit(STEP).next().unwrap_or_default()
    }

    /// Its place without the last step.
    pub(crate) fn parent(&self) -> &str {
        self.place.rsplit_once(STEP).map_or("", |(parent, _)| parent)
    }
}

/// A whole text.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub(crate) leaves: Vec<Leaf>,
    by_place: BTreeMap<(usize, String), usize>,
}

impl Reading {
    /// # Errors
    /// It is not YAML to libyaml.
    pub(crate) fn of(text: &str) -> Result<Self, String> {
        // This port of libyaml gives up on a block that ends with the text instead of with a line break.
        let cut = !text.ends_with('\n');
        let whole = if cut { format!("{text}\n") } else { text.to_owned() };
        let mut bytes = whole.as_bytes();
        let mut parser = Parser::new();
        parser.set_input_string(&mut bytes);
        let mut walk = Walk {
            parser,
            leaves: Vec::new(),
            document: 0,
        };
        loop {
            let event = walk.parser.parse().map_err(|error| error.to_string())?;
            match event.data {
                EventData::StreamEnd => break,
                EventData::DocumentStart { implicit, .. } => {
                    let at = walk.leaves.len();
                    walk.leaves.push(Leaf {
                        document: walk.document,
                        place: "---".to_owned(),
                        meaning: Meaning::Document {
                            start: !implicit,
                            end: false,
                        },
                        anchor: None,
                        tag: None,
                        line: 0,
                        end_line: 0,
                        columns: 0..0,
                        style: Style::Collection,
                    });
                    let first = walk.parser.parse().map_err(|error| error.to_string())?;
                    walk.node(first, "", 0)?;
                    let end = walk.parser.parse().map_err(|error| error.to_string())?;
                    if let EventData::DocumentEnd { implicit } = end.data {
                        walk.leaves[at].meaning = Meaning::Document {
                            start: matches!(walk.leaves[at].meaning, Meaning::Document { start: true, .. }),
                            end: !implicit,
                        };
                    }
                    walk.document += 1;
                }
                _ => {}
            }
        }
        if let Some(Leaf {
            style: Style::Block,
            meaning: Meaning::Text(text),
            ..
        }) = walk.leaves.last_mut().filter(|_| cut)
        {
            text.truncate(text.strip_suffix('\n').unwrap_or(text).len());
        }
        let by_place = walk
            .leaves
            .iter()
            .enumerate()
            .map(|(at, leaf)| ((leaf.document, leaf.place.clone()), at))
            .collect();
        Ok(Self {
            leaves: walk.leaves,
            by_place,
        })
    }

    pub(crate) fn get(&self, document: usize, place: &str) -> Option<&Leaf> {
        self.by_place
            .get(&(document, place.to_owned()))
            .map(|at| &self.leaves[*at])
    }

    /// The text of a string at a place.
    pub(crate) fn text(&self, document: usize, place: &str) -> Option<&str> {
        self.get(document, place)?.text()
    }

    /// What is written at a place, whatever it means.
    pub(crate) fn scalar(&self, document: usize, place: &str) -> Option<&str> {
        self.get(document, place)?.scalar()
    }

    pub(crate) fn documents(&self) -> usize {
        self.leaves.last().map_or(0, |leaf| leaf.document + 1)
    }

    /// How an edit names a document: by kind and name where it is an object, else by its number.
    pub(crate) fn name_of(&self, document: usize) -> String {
        let scalar = |place| self.get(document, place).and_then(Leaf::scalar);
        match (scalar("kind"), scalar("metadata/name")) {
            (Some(kind), Some(name)) if scalar("apiVersion").is_some() => format!("{kind}/{name}"),
            _ => (document + 1).to_string(),
        }
    }
}

pub(crate) fn join(place: &str, step: &str) -> String {
    if place.is_empty() {
        step.to_owned()
    } else {
        format!("{place}{STEP}{step}")
    }
}

struct Walk<'a, 'b> {
    parser: Parser<&'a mut &'b [u8]>,
    leaves: Vec<Leaf>,
    document: usize,
}

impl Walk<'_, '_> {
    fn node(&mut self, event: libyaml_safer::Event, place: &str, depth: usize) -> Result<(), String> {
        if depth > 200 {
            return Err("too deep for this reader".to_owned());
        }
        let (start, end) = (event.start_mark, event.end_mark);
        let mut push = |meaning, anchor, tag, style| {
            self.leaves.push(Leaf {
                document: self.document,
                place: place.to_owned(),
                meaning,
                anchor,
                tag,
                line: start.line as usize,
                end_line: end.line as usize,
                columns: start.column as usize..end.column as usize,
                style,
            });
        };
        match event.data {
            EventData::Alias { anchor } => push(Meaning::Alias(anchor), None, None, Style::Plain),
            EventData::Scalar {
                anchor,
                tag,
                value,
                style,
                ..
            } => {
                let style = match style {
                    ScalarStyle::SingleQuoted => Style::Single,
                    ScalarStyle::DoubleQuoted => Style::Double,
                    ScalarStyle::Literal | ScalarStyle::Folded => Style::Block,
                    _ => Style::Plain,
                };
                let meaning = if style == Style::Plain && tag.is_none() && !is_text(&value) {
                    Meaning::Other(value)
                } else {
                    Meaning::Text(value)
                };
                push(meaning, anchor, tag, style);
            }
            EventData::SequenceStart {
                anchor, tag, style, ..
            } => {
                let flow = style == SequenceStyle::Flow;
                push(Meaning::List { flow }, anchor, tag, Style::Collection);
                for number in 0.. {
                    let event = self.parser.parse().map_err(|error| error.to_string())?;
                    if event.data == EventData::SequenceEnd {
                        break;
                    }
                    self.node(event, &join(place, &number.to_string()), depth + 1)?;
                }
            }
            EventData::MappingStart {
                anchor, tag, style, ..
            } => {
                let flow = style == MappingStyle::Flow;
                push(Meaning::Map { flow }, anchor, tag, Style::Collection);
                loop {
                    let event = self.parser.parse().map_err(|error| error.to_string())?;
                    let key = match &event.data {
                        EventData::MappingEnd => break,
                        EventData::Scalar { value, .. } => value.clone(),
                        EventData::Alias { anchor } => format!("*{anchor}"),
                        _ => "?".to_owned(),
                    };
                    // A key is a node too: its anchor, its tag, and whether it is a string.
                    self.node(event, &join(place, &format!("{key}:")), depth + 1)?;
                    let event = self.parser.parse().map_err(|error| error.to_string())?;
                    self.node(event, &join(place, &key), depth + 1)?;
                }
            }
            other => return Err(format!("no node: {other:?}")),
        }
        Ok(())
    }
}

/// Whether a plain scalar is a string to every reader: YAML 1.1 (its type repository, as PyYAML and go-yaml have it),
/// YAML 1.2's core schema, and go-yaml, which drops underscores before it tries numbers.
pub(crate) fn is_text(text: &str) -> bool {
    use std::sync::LazyLock;

    use regex::Regex;
    static OTHER: LazyLock<Vec<Regex>> = LazyLock::new(|| {
        [
            // YAML 1.1; its type repository also accepts `0x_` as a number, which no parser does.
            "~|null|Null|NULL|",
            "y|Y|yes|Yes|YES|n|N|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
            "[-+]?0b_*[01][01_]*|[-+]?0[0-7_]+|[-+]?(?:0|[1-9][0-9_]*)|[-+]?0x_*[0-9a-fA-F][0-9a-fA-F_]*|[-+]?[1-9][0-9_]*(?::[0-5]?[0-9])+",
            r"[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?",
            r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+\.[0-9_]*|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
            "[0-9]{4}-[0-9]{1,2}-[0-9]{1,2}(?:(?:[Tt]|[ \t]+)[0-9].*)?",
            "<<|=",
            // YAML 1.2.
            r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+|[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?",
        ]
        .iter()
        .map(|pattern| Regex::new(&format!("^(?:{pattern})$")).unwrap())
        .collect()
    });
    static WITHOUT_UNDERSCORES: LazyLock<Regex> = LazyLock::new(|| {
        Regex::new(
            r"^[-+]?(?:0[xX][0-9a-fA-F]+|0[oO]?[0-7]+|0[bB][01]+|(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?)$",
        )
        .unwrap()
    });
    let number = text.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c))
        && WITHOUT_UNDERSCORES.is_match(&text.replace('_', ""));
    !number && !OTHER.iter().any(|other| other.is_match(text))
}
