//! The files of a site in a node's directory.
//!
//! Each is written whole and durably, beside its place, and moved there. What a node believes is written before it acts
//! by it, and the floors after all else: whatever is cut off, the files hold at least what the floors say.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use skep_consensus::{ReadableBy, replace_whole};
use skep_protocol::codec::Encoded;
use skep_protocol::node_dir::NodeDir;
use skep_trust::{
    Admission, Admitted, Chain, MemberAddress, PublicKey, Refusal, SiteClock, SiteNews, SiteTime, SiteView,
};

use super::error::SiteFilesError;
use super::first::FirstShards;
use super::floors::Floors;
use super::hints::Hints;
use super::pages::{self, ViewError};
use super::sheet::Sheet;

/// What a node keeps of its site.
#[derive(Debug)]
pub(crate) struct Kept {
    /// The root documents, and who is out.
    pub(crate) view: SiteView,
    /// What the node shows.
    pub(crate) chain: Chain,
    /// Site time is not earlier.
    pub(crate) time: SiteTime,
    /// Where members are said to be.
    pub(crate) hints: Vec<MemberAddress>,
}

impl Kept {
    /// Whether the node with this key belongs to the site, as far as it knows.
    ///
    /// # Errors
    /// [`Refusal`] says why not: other members refuse it for the same reason.
    pub(crate) fn own(&self, key: PublicKey) -> Result<Admitted, Refusal> {
        let shown = Bytes::from(self.chain.to_bytes());
        Admission::default().admit(&self.view, &shown, key, SiteClock::AtLeast(self.time))
    }
}

/// The directory of a site's files.
#[derive(Clone, Debug)]
pub(crate) struct SiteFiles {
    dir: PathBuf,
}

impl SiteFiles {
    /// Those in a node's directory.
    pub(crate) fn of(node_dir: &NodeDir) -> Self {
        Self { dir: node_dir.site() }
    }

    /// Whether the node belongs to a site that was made, or that it joined.
    ///
    /// # Errors
    /// [`SiteFilesError::Io`] if that cannot be seen.
    pub(crate) fn are_there(&self) -> Result<bool, SiteFilesError> {
        self.dir.try_exists().map_err(SiteFilesError::io(&self.dir))
    }

    /// Makes the directory with all files in it, or nothing. `first`: the shards that this node is to make, if the site
    /// begins with it.
    ///
    /// # Errors
    /// [`SiteFilesError::Io`], also if it is there already.
    pub(crate) fn create(&self, kept: &Kept, first: Option<&FirstShards>) -> Result<(), SiteFilesError> {
        let mut aside = self.dir.clone().into_os_string();
        aside.push(format!(".{:016x}.new", rand::random::<u64>()));
        let aside = Self { dir: aside.into() };
        let written = aside.fill(kept, first).and_then(|()| {
            // A directory that is there and not empty is not replaced.
            std::fs::rename(&aside.dir, &self.dir).map_err(SiteFilesError::io(&self.dir))
        });
        if written.is_err() {
            // It may not be there.
            drop(std::fs::remove_dir_all(&aside.dir));
        }
        written?;
        let parent = self.dir.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
        File::open(parent).and_then(|parent| parent.sync_all()).map_err(SiteFilesError::io(parent))
    }

    fn fill(&self, kept: &Kept, first: Option<&FirstShards>) -> Result<(), SiteFilesError> {
        DirBuilder::new().mode(0o700).create(&self.dir).map_err(SiteFilesError::io(&self.dir))?;
        self.write(Sheet::Floors, &self.encoded(Sheet::Floors, &Floors::default())?)?;
        self.keep(&kept.view, kept.time)?;
        self.write_chain(&kept.chain)?;
        if let Some(first) = first {
            self.write(Sheet::First, &self.encoded(Sheet::First, first)?)?;
        }
        self.write_hints(&kept.hints)
    }

    /// Writes down where members are said to be: the first of these, as many as are kept.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub(crate) fn write_hints(&self, members: &[MemberAddress]) -> Result<(), SiteFilesError> {
        self.write(Sheet::Hints, &self.encoded(Sheet::Hints, &Hints::of(members))?)
    }

    /// Writes down what the node knows of root documents and revocations, and that site time is not earlier than this.
    ///
    /// # Errors
    /// [`SiteFilesError::Older`] if the node knew more, and nothing is written; or whatever the disk says.
    pub(crate) fn keep(&self, view: &SiteView, time: SiteTime) -> Result<(), SiteFilesError> {
        let (known, news) = (self.floors()?, view.news());
        self.check_floors(&known, view)?;
        if known.root_version != news.root_version {
            self.write(Sheet::Roots, &pages::documents(view))?;
        }
        let has_same =
            (known.root_version, known.epoch_min, known.digest) == (news.root_version, news.epoch_min, news.digest);
        if !has_same {
            self.write(Sheet::Revocations, &pages::revocations(view))?;
        }
        let raised = known.raised_to(Floors::of(&news, time));
        if raised == known { Ok(()) } else { self.write(Sheet::Floors, &self.encoded(Sheet::Floors, &raised)?) }
    }

    /// Writes down that site time is not earlier than this. A time that is known to be earlier changes nothing.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub(crate) fn keep_time(&self, time: SiteTime) -> Result<(), SiteFilesError> {
        let known = self.floors()?;
        let raised = Floors { time: known.time.max(time), ..known };
        if raised == known { Ok(()) } else { self.write(Sheet::Floors, &self.encoded(Sheet::Floors, &raised)?) }
    }

    /// The shards that this node is to make; none if it made them, or the site did not begin with it.
    ///
    /// # Errors
    /// [`SiteFilesError`] if the file is not whole, or open to others.
    pub(crate) fn first(&self) -> Result<Option<FirstShards>, SiteFilesError> {
        let path = self.path(Sheet::First);
        let is_there = path.try_exists().map_err(SiteFilesError::io(&path))?;
        is_there.then(|| self.decoded(Sheet::First)).transpose()
    }

    /// The node has made the first shards, and makes none again.
    ///
    /// # Errors
    /// Whatever the disk says. The shards are looked at once more at the next start then.
    pub(crate) fn forget_first(&self) -> Result<(), SiteFilesError> {
        let path = self.path(Sheet::First);
        let gone = std::fs::remove_file(&path).and_then(|()| File::open(&self.dir)?.sync_all());
        gone.map_err(SiteFilesError::io(&path))
    }

    /// Writes down what the node shows from here on.
    ///
    /// # Errors
    /// Whatever the disk says.
    pub(crate) fn write_chain(&self, chain: &Chain) -> Result<(), SiteFilesError> {
        self.write(Sheet::Chain, &chain.to_bytes())
    }

    /// Reads all of it. That the chain holds is the caller's question.
    ///
    /// # Errors
    /// [`SiteFilesError`] if a file is not there, not whole, open to others, or older than what the node knew.
    pub(crate) fn read(&self) -> Result<Kept, SiteFilesError> {
        let mode = std::fs::metadata(&self.dir).map_err(SiteFilesError::io(&self.dir))?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SiteFilesError::Open { path: self.dir.clone(), mode, to: 0o700 });
        }
        let floors = self.floors()?;
        let view = self.view()?;
        self.check_floors(&floors, &view)?;
        let chain = Chain::from_bytes(&self.body(Sheet::Chain)?.into())
            .map_err(|source| SiteFilesError::Chain { path: self.path(Sheet::Chain), source })?;
        let hints: Hints = self.decoded(Sheet::Hints)?;
        // Whoever issued the certificate knew that time.
        let issued = chain.certificate().map_or(SiteTime::default(), |certificate| certificate.validity.from);
        Ok(Kept { view, chain, time: floors.time.max(issued), hints: hints.members() })
    }

    fn view(&self) -> Result<SiteView, SiteFilesError> {
        let pages = |sheet: Sheet| -> Result<SiteNews, SiteFilesError> {
            pages::read(&self.body(sheet)?)
                .map_err(|source| SiteFilesError::Malformed { path: self.path(sheet), source })
        };
        let (documents, revocations) = (pages(Sheet::Roots)?.documents, pages(Sheet::Revocations)?.revocations);
        pages::view(documents, revocations).map_err(|error| match error {
            ViewError::Root(source) => SiteFilesError::Root { path: self.path(Sheet::Roots), source },
            ViewError::Revocation(source) => {
                SiteFilesError::Revocation { path: self.path(Sheet::Revocations), source: Box::new(source) }
            }
        })
    }

    fn floors(&self) -> Result<Floors, SiteFilesError> {
        self.decoded(Sheet::Floors)
    }

    fn check_floors(&self, floors: &Floors, view: &SiteView) -> Result<(), SiteFilesError> {
        let missed = floors.missed_by(&view.news());
        missed.map_or(Ok(()), |what| Err(SiteFilesError::Older { path: self.dir.clone(), what }))
    }

    fn path(&self, sheet: Sheet) -> PathBuf {
        self.dir.join(sheet.name())
    }

    fn encoded(&self, sheet: Sheet, value: &impl Encoded) -> Result<Vec<u8>, SiteFilesError> {
        value.encode().map_err(|source| SiteFilesError::Malformed { path: self.path(sheet), source })
    }

    fn decoded<T: Encoded>(&self, sheet: Sheet) -> Result<T, SiteFilesError> {
        T::decode(&self.body(sheet)?).map_err(|source| SiteFilesError::Malformed { path: self.path(sheet), source })
    }

    fn write(&self, sheet: Sheet, body: &[u8]) -> Result<(), SiteFilesError> {
        let path = self.path(sheet);
        replace_whole(&path, &sheet.wrap(body), ReadableBy::Owner).map_err(SiteFilesError::io(&path))
    }

    /// What a file holds, if it is there whole, and nobody else can have changed it.
    fn body(&self, sheet: Sheet) -> Result<Vec<u8>, SiteFilesError> {
        let path = self.path(sheet);
        let file = match File::open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(SiteFilesError::Damaged { path, why: "it is missing" });
            }
            opened => opened.map_err(SiteFilesError::io(&path))?,
        };
        let mode = file.metadata().map_err(SiteFilesError::io(&path))?.mode() & 0o7777;
        if mode & 0o077 != 0 {
            return Err(SiteFilesError::Open { path, mode, to: 0o600 });
        }
        let (mut bytes, max) = (Vec::new(), sheet.bytes_max());
        file.take(max + 1).read_to_end(&mut bytes).map_err(SiteFilesError::io(&path))?;
        if bytes.len() as u64 > max {
            return Err(SiteFilesError::TooLarge { path, max });
        }
        match sheet.body_of(&bytes) {
            Ok(body) => Ok(body.to_vec()),
            Err(why) => Err(SiteFilesError::Damaged { path, why }),
        }
    }
}

#[cfg(test)]
mod tests;
