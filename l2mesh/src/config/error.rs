//! What is wrong with a configuration, where, and what to do about it.

use std::fmt;

use serde::Serialize;

/// Where a configuration says something: a line of a file, or a flag.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize)]
pub(crate) struct Location {
    /// The file as the user named it, or the flag; empty for the command line as a whole.
    pub place: String,
    /// The line of the file, from 1.
    pub line: Option<usize>,
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.place),
            None => f.write_str(&self.place),
        }
    }
}

/// One thing wrong, shown as `mesh.toml:12: what: what to do`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub(crate) struct ConfigError {
    /// Where it stands.
    #[serde(flatten)]
    pub location: Location,
    /// What is wrong and what to do.
    pub text: String,
}

impl ConfigError {
    /// An error at `location`.
    pub(crate) fn new(location: Location, text: impl Into<String>) -> Self {
        Self { location, text: text.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.location.place.is_empty() {
            f.write_str(&self.text)
        } else {
            write!(f, "{}: {}", self.location, self.text)
        }
    }
}

impl std::error::Error for ConfigError {}

/// Everything wrong with a configuration, in the order of its lines, one a line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct ConfigErrors(pub Vec<ConfigError>);

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{error}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// Where a value came from, before it is turned into a [`Location`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Origin {
    /// Octets from the start of the file.
    Offset(usize),
    /// A flag, with its dashes.
    Flag(&'static str),
    /// No line in particular.
    Whole,
}

/// The configuration being read, as far as errors need it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Source<'a> {
    File {
        name: &'a str,
        text: &'a str,
    },
    Flags,
    /// Made from flags, then changed: nobody has it to look into.
    FlagsText {
        name: &'a str,
    },
}

/// Collects errors, so that all of them are shown at once.
#[derive(Debug)]
pub(super) struct Report<'a> {
    source: Source<'a>,
    /// Where each line of the file ends, octets from its start.
    ends: Vec<usize>,
    errors: Vec<ConfigError>,
}

impl<'a> Report<'a> {
    pub(super) fn new(source: Source<'a>) -> Self {
        let text = if let Source::File { text, .. } = source { text } else { "" };
        let ends = text.bytes().enumerate().filter(|(_, octet)| *octet == b'\n').map(|(offset, _)| offset);
        Self { source, ends: ends.collect(), errors: Vec::new() }
    }

    pub(super) fn error(&mut self, origin: Origin, text: impl Into<String>) {
        self.errors.push(ConfigError::new(self.location(origin), text));
    }

    pub(super) fn location(&self, origin: Origin) -> Location {
        match (self.source, origin) {
            (Source::File { name, .. }, Origin::Offset(offset)) => {
                let line = self.ends.partition_point(|&end| end < offset) + 1;
                Location { place: name.into(), line: Some(line) }
            }
            (Source::File { name, .. } | Source::FlagsText { name }, _) => Location { place: name.into(), line: None },
            (Source::Flags, Origin::Flag(flag)) => Location { place: flag.into(), line: None },
            (Source::Flags, _) => Location::default(),
        }
    }

    /// "in line 8" or "given with --peer", for errors that name two places.
    pub(super) fn reference(&self, origin: Origin) -> String {
        let location = self.location(origin);
        match location.line {
            Some(line) => format!("in line {line}"),
            None => format!("given with {}", location.place),
        }
    }

    /// `value` if nothing was wrong.
    pub(super) fn finish<T>(mut self, value: T) -> Result<T, ConfigErrors> {
        if self.errors.is_empty() {
            return Ok(value);
        }
        self.errors.sort_by_key(|error| error.location.line);
        Err(ConfigErrors(self.errors))
    }
}
