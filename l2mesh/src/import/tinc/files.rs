//! The files of a tinc network, as `src/conf.c` of tinc 1.1 reads them.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use anyhow::Context as _;

use crate::config::{ConfigError, Location, read};

/// `Variable = Value`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Variable {
    /// As written: case does not count.
    pub(super) name: String,
    pub(super) value: String,
    pub(super) at: Location,
}

/// The assignments of tinc.conf or of a host, in the order of the file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Variables(pub(super) Vec<Variable>);

impl Variables {
    /// The first of that name.
    pub(super) fn first(&self, name: &str) -> Option<&Variable> {
        self.0.iter().find(|variable| variable.name.eq_ignore_ascii_case(name))
    }

    /// Every one of that name.
    pub(super) fn all<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a Variable> {
        self.0.iter().filter(move |variable| variable.name.eq_ignore_ascii_case(name))
    }
}

/// What the directory has.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Files {
    pub(super) directory: PathBuf,
    /// tinc.conf and conf.d.
    pub(super) server: Variables,
    /// By name.
    pub(super) hosts: BTreeMap<String, Variables>,
    /// tinc-up and what is in it.
    pub(super) up: Option<(String, String)>,
    /// Other scripts, and what else is in hosts/.
    pub(super) others: Vec<String>,
}

impl Files {
    /// Reads what is there; nothing of it is run.
    ///
    /// # Errors
    /// There is no tinc.conf or hosts/ in it, or something cannot be read.
    pub(super) fn read(directory: &Path) -> anyhow::Result<Self> {
        let mut files = Self { directory: directory.into(), ..Self::default() };
        files.server = variables_of(&directory.join("tinc.conf"))?;
        for path in entries(&directory.join("conf.d"), true)? {
            if path.extension().is_some_and(|extension| extension == "conf") {
                files.server.0.extend(variables_of(&path)?.0);
            }
        }
        for path in entries(&directory.join("hosts"), false)? {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            if is_name(&name) && path.is_file() {
                files.hosts.insert(name, variables_of(&path)?);
            } else {
                files.others.push(format!("hosts/{name}"));
            }
        }
        let scripts = ["tinc-down", "host-up", "host-down", "subnet-up", "subnet-down"];
        let there = scripts.into_iter().filter(|script| directory.join(script).exists());
        files.others.extend(there.map(str::to_owned));
        let up = directory.join("tinc-up");
        if up.exists() {
            files.up = Some((up.display().to_string(), text_of(&up)?));
        }
        Ok(files)
    }
}

/// A name as tinc takes it (`check_id`).
pub(super) fn is_name(name: &str) -> bool {
    !name.is_empty() && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'_')
}

/// The files of a directory by name; `optional` if it may be absent.
fn entries(directory: &Path, optional: bool) -> anyhow::Result<Vec<PathBuf>> {
    let failed = || format!("{}: cannot be read", directory.display());
    let found = match fs::read_dir(directory) {
        Err(error) if optional && error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        found => found.with_context(failed)?,
    };
    let found = found.map(|entry| Ok(entry?.path()));
    let mut found = found.collect::<io::Result<Vec<_>>>().with_context(failed)?;
    found.sort();
    Ok(found)
}

fn text_of(path: &Path) -> anyhow::Result<String> {
    read(path).with_context(|| format!("{}: cannot be read", path.display()))
}

fn variables_of(path: &Path) -> anyhow::Result<Variables> {
    Ok(variables(&text_of(path)?, &path.display().to_string())?)
}

/// The assignments of a file: comments have the `#` first on the line, keys are left out.
///
/// # Errors
/// A variable without a value, which tinc refuses too.
pub(super) fn variables(text: &str, place: &str) -> Result<Variables, ConfigError> {
    let mut found = Variables::default();
    let mut in_key = false;
    for (line, number) in text.lines().zip(1..) {
        if in_key {
            in_key = !line.starts_with("-----END");
            continue;
        }
        if line.starts_with("-----BEGIN") {
            in_key = true;
            continue;
        }
        let line = line.trim_ascii_end();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at = Location { place: place.into(), line: Some(number) };
        let (name, rest) = line.split_at(line.find(['\t', ' ', '=']).unwrap_or(line.len()));
        let rest = rest.trim_ascii_start();
        let value = rest.strip_prefix('=').unwrap_or(rest).trim_ascii_start();
        if value.is_empty() {
            return Err(ConfigError::new(at, format!("{name:?} has no value")));
        }
        found.0.push(Variable { name: name.into(), value: value.into(), at });
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments() {
        let text = "# a comment\nName = alpha\r\n\nConnectTo=beta\nconnectto\tgamma\nPort 6500  \n\
                    -----BEGIN RSA PUBLIC KEY-----\nMIG=\n-----END RSA PUBLIC KEY-----\nMode = switch # no comment\n";
        let found = variables(text, "tinc.conf").expect("assignments");
        let values: Vec<_> = found.0.iter().map(|it| (it.name.as_str(), it.value.as_str())).collect();
        assert_eq!(
            values,
            [
                ("Name", "alpha"),
                ("ConnectTo", "beta"),
                ("connectto", "gamma"),
                ("Port", "6500"),
                ("Mode", "switch # no comment"),
            ]
        );
        assert_eq!(found.all("CONNECTTO").count(), 2);
        assert_eq!(found.first("port").expect("a port").at.to_string(), "tinc.conf:6");
        let error = variables("Name = a\nPort =\n", "tinc.conf").expect_err("refused");
        assert_eq!(error.to_string(), "tinc.conf:2: \"Port\" has no value");
    }

    #[test]
    fn names() {
        for (name, expected) in [("alpha", true), ("a_1", true), ("", false), ("alpha-up", false), ("alpha~", false)] {
            assert_eq!(is_name(name), expected, "{name}");
        }
    }
}
