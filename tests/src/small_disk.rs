//! A small file system under a part of a node's directory. Tests can fill it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// A mounted file system. Dropping it unmounts it.
#[derive(Debug)]
pub struct SmallDisk {
    dir: PathBuf,
}

impl SmallDisk {
    /// Mounts a file system of this size, such as `64m`, in place of a directory that no process uses, and copies its
    /// content. None if this process may not mount.
    ///
    /// # Panics
    /// If the directory cannot be copied: the test cannot go on.
    #[must_use]
    #[allow(clippy::expect_used, reason = "a harness: what fails here fails the test")]
    pub fn mount(dir: &Path, size: &str) -> Option<Self> {
        let beside = dir.with_extension("before");
        if dir.exists() {
            std::fs::rename(dir, &beside).expect("the directory is moved");
        }
        std::fs::create_dir_all(dir).expect("a place to mount at");
        let options = format!("size={size}");
        let mounted = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "skep-test"]).arg(dir).status();
        if !mounted.is_ok_and(|status| status.success()) {
            println!("skipped: mounting a small file system needs root");
            return None;
        }
        if beside.exists() {
            let copied = Command::new("cp").arg("-a").arg(beside.join(".")).arg(dir).status();
            assert!(copied.is_ok_and(|status| status.success()), "{} is copied", beside.display());
        }
        Some(Self { dir: dir.to_owned() })
    }

    fn filler(&self) -> PathBuf {
        self.dir.join("filler")
    }

    /// Fills the file system up to the last byte.
    ///
    /// # Panics
    /// If it cannot be filled: the test cannot go on.
    #[allow(clippy::expect_used, reason = "a harness: what fails here fails the test")]
    pub fn fill(&self) {
        let filler = std::fs::OpenOptions::new().create(true).append(true).open(self.filler());
        let mut filler = filler.expect("a file to fill it with");
        for bytes in [1 << 20, 4_096, 1] {
            while std::io::Write::write_all(&mut filler, &vec![1; bytes]).is_ok() {}
        }
    }

    /// Fills the file system except for this many bytes.
    ///
    /// # Panics
    /// If it cannot be filled: the test cannot go on.
    #[allow(clippy::expect_used, reason = "a harness: what fails here fails the test")]
    pub fn fill_but(&self, left: u64) {
        self.fill();
        let filler = std::fs::OpenOptions::new().write(true).open(self.filler()).expect("it was filled");
        let bytes = filler.metadata().expect("it has a length").len();
        filler.set_len(bytes.saturating_sub(left)).expect("it is made shorter");
    }

    /// Makes room in the file system again.
    ///
    /// # Panics
    /// If the file system was not filled.
    #[allow(clippy::expect_used, reason = "a harness: what fails here fails the test")]
    pub fn free(&self) {
        std::fs::remove_file(self.filler()).expect("it was filled");
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // The unmount is lazy: the node that uses the file system may end after this.
        let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
    }
}
