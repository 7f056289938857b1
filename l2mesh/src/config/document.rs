//! The text of the configuration in force, comments and all: what is read, changed by verbs and written back.

use std::{
    fmt::Write as _,
    fs::{self, File, Permissions},
    io::{self, Write as _},
    os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown},
    path::{Path, PathBuf},
};

use super::{ConfigError, ConfigErrors, Location, Mesh, NodeKind, read, read_again};

/// A text and what became of it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Document {
    origin: Origin,
    /// As it was read.
    read: String,
    /// As it is in force.
    text: String,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Origin {
    File(PathBuf),
    /// Made from flags, with this host's node.
    Flags(String),
}

impl Document {
    /// Reads a file.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn from_file(path: &Path) -> Result<Self, ConfigErrors> {
        Self::new(path, read(path))
    }

    fn new(path: &Path, text: io::Result<String>) -> Result<Self, ConfigErrors> {
        match text {
            Ok(text) => Ok(Self { origin: Origin::File(path.to_owned()), read: text.clone(), text }),
            Err(error) => {
                let location = Location { place: path.display().to_string(), line: None };
                Err(ConfigError::new(location, format!("cannot be read: {error}")).into())
            }
        }
    }

    /// The text that says what flags have said.
    pub(crate) fn from_flags(mesh: &Mesh, own: usize) -> Self {
        let text = flags_text(mesh);
        Self { origin: Origin::Flags(mesh.nodes[own].name.clone()), read: text.clone(), text }
    }

    /// What it says.
    ///
    /// # Errors
    /// Any of the reasons of [`Mesh::from_toml`].
    pub(crate) fn mesh(&self) -> Result<Mesh, ConfigErrors> {
        let changed = if self.is_changed() { " (as changed)" } else { "" };
        match &self.origin {
            Origin::File(path) => Mesh::from_toml(&self.text, &format!("{}{changed}", path.display())),
            Origin::Flags(own) => Mesh::from_flags_text(&self.text, "the mesh as changed", own),
        }
    }

    /// The same, read anew. What was changed and not saved is gone; of flags that is all that is done.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn reread(&self) -> Result<Self, ConfigErrors> {
        match &self.origin {
            Origin::File(path) => Self::new(path, read_again(path)),
            Origin::Flags(_) => Ok(Self { text: self.read.clone(), ..self.clone() }),
        }
    }

    /// The same with another text.
    pub(crate) fn with_text(&self, text: String) -> Self {
        Self { text, ..self.clone() }
    }

    /// As it is in force.
    pub(crate) fn text(&self) -> &str {
        &self.text
    }

    /// The file, if it is one.
    pub(crate) fn path(&self) -> Option<&Path> {
        match &self.origin {
            Origin::File(path) => Some(path),
            Origin::Flags(_) => None,
        }
    }

    /// How people call it.
    pub(crate) fn name(&self) -> String {
        self.path().map_or_else(|| "the flags".to_owned(), |path| path.display().to_string())
    }

    /// True if it is not as it was read.
    pub(crate) fn is_changed(&self) -> bool {
        self.text != self.read
    }

    /// True if the file is as it was when it was read.
    pub(crate) fn is_as_read(&self) -> bool {
        self.path().is_none_or(|path| read_again(path).is_ok_and(|text| text == self.read))
    }

    /// Writes it beside the file, to take the file's place.
    ///
    /// # Errors
    /// There is no file, somebody else has changed it, or it cannot be written: in one sentence.
    pub(crate) fn prepare(&self) -> Result<Prepared, String> {
        let Some(path) = self.path() else {
            return Err("this mesh was described by flags, there is no file to save into: attach with --config, or leave --save out"
                .to_owned());
        };
        let what = |error: io::Error| format!("{} cannot be saved: {error}", path.display());
        // Where it is a link, what it leads to.
        let path = fs::canonicalize(path).map_err(what)?;
        if read_again(&path).map_err(what)? != self.read {
            return Err(format!(
                "{} has been changed since it was read: `l2mesh reload` takes that up, then try again",
                path.display()
            ));
        }
        let metadata = fs::metadata(&path).map_err(what)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let beside = path.with_file_name(format!(".{name}.l2mesh-{}", std::process::id()));
        // Whatever a killed one has left.
        let _gone = fs::remove_file(&beside);
        let prepared = Prepared { path, beside, text: self.text.clone() };
        let write = || {
            let mut file = File::create_new(&prepared.beside)?;
            file.set_permissions(Permissions::from_mode(metadata.mode() & 0o7777))?;
            // Owned by whoever owned it, where that can be.
            let owned = fchown(&file, Some(metadata.uid()), Some(metadata.gid()));
            if file.metadata().map(|now| (now.uid(), now.gid()))? != (metadata.uid(), metadata.gid()) {
                owned?;
            }
            file.write_all(self.text.as_bytes())?;
            file.sync_all()
        };
        write().map_err(what)?;
        Ok(prepared)
    }

    /// It was saved: now it is as it was read.
    pub(crate) fn saved(&mut self) {
        self.read = self.text.clone();
    }
}

/// What is written and has not taken the file's place yet. Dropped, it is gone.
#[derive(Debug)]
pub(crate) struct Prepared {
    path: PathBuf,
    beside: PathBuf,
    text: String,
}

impl Prepared {
    /// Takes the file's place, in one step.
    ///
    /// # Errors
    /// The file system refuses.
    pub(crate) fn put(self) -> Result<PathBuf, String> {
        let what = |error| format!("{} cannot be saved: {error}", self.path.display());
        fs::rename(&self.beside, &self.path).map_err(what)?;
        debug_assert_eq!(read(&self.path).ok().as_ref(), Some(&self.text));
        Ok(self.path.clone())
    }
}

impl Drop for Prepared {
    fn drop(&mut self) {
        // Renamed, it is not there.
        let _gone = fs::remove_file(&self.beside);
    }
}

/// A mesh that flags can describe, as a file.
fn flags_text(mesh: &Mesh) -> String {
    let mut text =
        format!("[underlay]\nport = {}\nprivate-port = {}\n", mesh.underlay.port, mesh.underlay.private_port);
    for node in &mesh.nodes {
        let kind = if node.kind == NodeKind::Vxlan { "kind = \"vxlan\"\n" } else { "" };
        let relay = if node.relay { "relay = true\n" } else { "" };
        // Writing to a String cannot fail.
        let _infallible =
            write!(text, "\n[[node]]\nname = {:?}\naddress = \"{}\"\n{kind}{relay}", node.name, node.address);
    }
    for network in &mesh.networks {
        let _infallible = write!(
            text,
            "\n[[network]]\nname = {:?}\nvni = {}\ninterface = {:?}\n",
            network.name,
            network.vni.get(),
            network.interface
        );
        if let Some(limit) = network.storm_limit {
            let _infallible = writeln!(text, "storm-limit = {limit}");
        }
        for (&node, addresses) in &network.addresses {
            let addresses: Vec<String> = addresses.iter().map(|address| format!("\"{address}\"")).collect();
            let _infallible =
                writeln!(text, "addresses = {{ {:?} = [{}] }}", mesh.nodes[node].name, addresses.join(", "));
        }
    }
    text
}
