//! What is read of a site is what was written, and never less than the node knew.

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;

use skep_protocol::ids::Genesis;
use skep_protocol::signing::OperatorSecret;
use skep_trust::{Revocation, Revoked, RootDocument, Sealed, SignedRevocation};

use super::*;
use crate::site::found::tests::{NODE, OPERATOR, ROOTS, hall, key, secret};

/// All files of a site.
const SHEETS: [Sheet; 5] = [Sheet::Roots, Sheet::Chain, Sheet::Revocations, Sheet::Floors, Sheet::Hints];

/// A site's files in a directory that goes with them.
struct Fixture {
    dir: tempfile::TempDir,
    files: SiteFiles,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let files = SiteFiles::of(&NodeDir::of(dir.path()));
        let founded = hall(2).unwrap();
        let hints =
            vec![MemberAddress { node: key(NODE), control: Some("10.0.0.7:7341".parse().unwrap()), mesh: None }];
        files.create(&Kept { view: founded.view, chain: founded.chain, time: SiteTime(5_000), hints }, None).unwrap();
        Self { dir, files }
    }

    /// Learns that a key is out, and writes it down.
    fn revoke(&self, n: u8, time: u64) {
        let mut view = self.files.read().unwrap().view;
        assert_eq!(view.learn_revocation(revoked(&view, n)), Ok(true));
        self.files.keep(&view, SiteTime(time)).unwrap();
    }

    /// What is in each file.
    fn copy(&self) -> BTreeMap<&'static str, Vec<u8>> {
        SHEETS.map(|sheet| (sheet.name(), std::fs::read(self.files.path(sheet)).unwrap())).into()
    }

    fn restore(&self, sheet: Sheet, bytes: &[u8]) {
        std::fs::write(self.files.path(sheet), bytes).unwrap();
    }

    fn names(&self) -> Vec<String> {
        let listed = std::fs::read_dir(self.dir.path()).unwrap();
        listed.map(|item| item.unwrap().file_name().into_string().unwrap()).collect()
    }
}

fn revoked(view: &SiteView, n: u8) -> SignedRevocation {
    let revocation = Revocation {
        site: view.root().site(),
        what: Revoked::Key(key(n)),
        epoch: view.epoch_min(),
        reason: "stolen".parse().unwrap(),
        operator: key(OPERATOR),
    };
    SignedRevocation { revocation: Sealed::seal(&revocation, &[&secret(OPERATOR)]).unwrap(), chain: None }
}

/// The root document after the one that is known, as it is but for what the caller changes.
fn next(view: &SiteView, change: impl FnOnce(RootDocument) -> RootDocument) -> Sealed<RootDocument> {
    let root = view.root();
    let (after, version) = (Some((root.site(), root.digest())), root.document().version + 1);
    let document = change(RootDocument { after, version, ..root.document().clone() });
    let keys = ROOTS.map(secret);
    Sealed::seal(&document, &keys.iter().collect::<Vec<_>>()).unwrap()
}

/// Bytes of a seed (xorshift64*).
fn rubbish(seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut byte = || {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 56) as u8
    };
    let length = usize::from(byte()) * 2;
    (0..length).map(|_| byte()).collect()
}

#[test]
fn a_site_is_read_as_it_was_written_and_its_node_belongs_to_it() {
    let fixture = Fixture::new();
    let (kept, founded) = (fixture.files.read().unwrap(), hall(2).unwrap());
    assert_eq!((kept.view.news(), kept.time), (founded.view.news(), SiteTime(5_000)));
    assert_eq!(kept.view.root().site(), founded.view.root().site());
    assert_eq!(kept.chain, founded.chain);
    assert_eq!(kept.hints[0].control, Some("10.0.0.7:7341".parse().unwrap()));
    assert_eq!(kept.own(key(NODE)).unwrap().member.key, key(NODE));
    assert!(kept.own(key(OPERATOR)).is_err(), "it is the certificate of somebody else");
    let mode = |path: &Path| std::fs::metadata(path).unwrap().mode() & 0o777;
    assert_eq!(mode(&fixture.files.dir), 0o700);
    SHEETS.iter().for_each(|sheet| assert_eq!(mode(&fixture.files.path(*sheet)), 0o600, "{sheet:?}"));
    assert_eq!(fixture.names(), ["site"], "nothing is left beside it");
}

#[test]
fn a_site_is_made_once_and_not_written_over() {
    let fixture = Fixture::new();
    let before = fixture.copy();
    assert!(fixture.files.create(&fixture.files.read().unwrap(), None).is_err());
    assert_eq!((fixture.copy(), fixture.names()), (before, vec!["site".to_owned()]));
}

#[test]
fn what_is_learned_is_there_after_a_restart() {
    let fixture = Fixture::new();
    fixture.revoke(30, 6_000);
    let mut view = fixture.files.read().unwrap().view;
    // The operator who said so is none any more. What it said before holds.
    let without = next(&view, |document| RootDocument { operators: [].into(), ..document });
    assert_eq!(view.learn_root(without), Ok(true));
    fixture.files.keep(&view, SiteTime(7_000)).unwrap();
    let kept = fixture.files.read().unwrap();
    assert_eq!((kept.view.news(), kept.time), (view.news(), SiteTime(7_000)));
    assert_eq!((kept.view.revocations().len(), kept.view.root().document().version), (1, 2));
    let longer = next(&view, |document| RootDocument { epoch: document.epoch + 1, ..document });
    assert_eq!(view.learn_root(longer), Ok(true));
    fixture.files.keep(&view, SiteTime(7_000)).unwrap();
    let kept = fixture.files.read().unwrap();
    assert_eq!((kept.view.news(), kept.view.revocations().len()), (view.news(), 0), "the epoch made it needless");
    assert!(matches!(kept.own(key(NODE)), Err(Refusal::Chain(_))), "who invited it may invite nobody any more");
}

#[test]
fn nothing_of_what_a_node_knew_falls() {
    let fixture = Fixture::new();
    let earlier = fixture.files.read().unwrap().view;
    fixture.revoke(30, 9_000);
    let before = fixture.copy();
    let error = fixture.files.keep(&earlier, SiteTime(10_000)).unwrap_err();
    assert!(matches!(error, SiteFilesError::Older { .. }), "{error}");
    assert_eq!(fixture.copy(), before, "nothing is written");
    let kept = fixture.files.read().unwrap();
    fixture.files.keep(&kept.view, SiteTime(1)).unwrap();
    assert_eq!(fixture.files.read().unwrap().time, SiteTime(9_000), "nor does time");
    assert_eq!(fixture.copy(), before, "what is known is not written again");
}

#[test]
fn a_file_that_is_restored_from_a_copy_is_noticed() {
    let fixture = Fixture::new();
    fixture.revoke(30, 6_000);
    let copy = fixture.copy();
    let mut view = fixture.files.read().unwrap().view;
    view.learn_revocation(revoked(&view, 31)).unwrap();
    view.learn_root(next(&view, |document| document)).unwrap();
    fixture.files.keep(&view, SiteTime(7_000)).unwrap();
    for sheet in [Sheet::Roots, Sheet::Revocations] {
        let latest = std::fs::read(fixture.files.path(sheet)).unwrap();
        fixture.restore(sheet, &copy[sheet.name()]);
        let error = fixture.files.read().unwrap_err().to_string();
        assert!(error.contains("older than what this node knew") && error.contains("join again"), "{sheet:?}: {error}");
        fixture.restore(sheet, &latest);
    }
    assert_eq!(fixture.files.read().unwrap().view.news(), view.news());
    // As many revocations, and others.
    let other = Fixture::new();
    other.revoke(40, 6_000);
    other.revoke(41, 6_000);
    fixture.restore(Sheet::Revocations, &other.copy()["revocations"]);
    assert!(matches!(fixture.files.read(), Err(SiteFilesError::Older { .. })));
}

#[test]
fn a_directory_that_is_restored_whole_is_as_it_was_and_learns_again_what_others_tell() {
    let fixture = Fixture::new();
    let copy = fixture.copy();
    fixture.revoke(30, 6_000);
    let latest = fixture.files.read().unwrap().view;
    SHEETS.iter().for_each(|sheet| fixture.restore(*sheet, &copy[sheet.name()]));
    let mut restored = fixture.files.read().unwrap().view;
    let told = latest.missing_of(&restored.news()).unwrap();
    for signed in told.revocations {
        restored.learn_revocation(signed).unwrap();
    }
    fixture.files.keep(&restored, SiteTime(0)).unwrap();
    assert_eq!(fixture.files.read().unwrap().view.news(), latest.news());
}

#[test]
fn a_write_that_was_cut_off_between_two_files_leaves_what_can_be_read() {
    // Root documents and revocations are written before the floors.
    let fixture = Fixture::new();
    let before = fixture.copy();
    fixture.revoke(30, 6_000);
    fixture.restore(Sheet::Floors, &before["floors"]);
    let kept = fixture.files.read().unwrap();
    assert_eq!(kept.view.revocations().len(), 1);
    fixture.files.keep(&kept.view, SiteTime(6_000)).unwrap();
    assert_eq!(fixture.files.floors().unwrap().revocations, 1, "and the floors follow");
}

#[test]
fn a_file_that_is_cut_off_altered_missing_or_in_the_place_of_another_is_named_and_never_believed() {
    let fixture = Fixture::new();
    fixture.revoke(30, 6_000);
    let copy = fixture.copy();
    for sheet in SHEETS {
        let (whole, path) = (&copy[sheet.name()], fixture.files.path(sheet));
        let is_refused = |what: &str| {
            let error = fixture.files.read().unwrap_err();
            assert!(matches!(error, SiteFilesError::Damaged { .. }), "{what}: {error}");
            let (told, shown) = (error.to_string(), path.display().to_string());
            assert!(told.contains(&shown) && told.contains("restore it from a copy, or join again"), "{what}: {told}");
        };
        for end in [0, 1, whole.len() / 2, whole.len() - 1] {
            fixture.restore(sheet, &whole[..end]);
            is_refused(&format!("{sheet:?} cut off at {end}"));
        }
        let mut altered = whole.clone();
        altered[whole.len() / 2] ^= 1;
        fixture.restore(sheet, &altered);
        is_refused(&format!("{sheet:?} altered"));
        let other = if sheet == Sheet::Roots { Sheet::Chain } else { Sheet::Roots };
        fixture.restore(sheet, &copy[other.name()]);
        is_refused(&format!("{other:?} in place of {sheet:?}"));
        std::fs::remove_file(&path).unwrap();
        is_refused(&format!("{sheet:?} missing"));
        fixture.files.write(sheet, sheet.body_of(whole).unwrap()).unwrap();
        assert!(fixture.files.read().is_ok());
    }
}

#[test]
fn rubbish_in_any_file_is_an_error_and_never_a_panic() {
    let fixture = Fixture::new();
    let copy = fixture.copy();
    for seed in 0..200 {
        for sheet in SHEETS {
            fixture.restore(sheet, &rubbish(seed));
            assert!(fixture.files.read().is_err(), "seed {seed}, {sheet:?}");
            // With a checksum that is right: what reads the body finds it.
            fixture.restore(sheet, &sheet.wrap(&rubbish(seed)));
            let read = fixture.files.read();
            let is_empty = rubbish(seed).is_empty() && sheet == Sheet::Revocations;
            assert!(read.is_err() || is_empty, "seed {seed}, {sheet:?}");
            fixture.restore(sheet, &copy[sheet.name()]);
        }
    }
    assert!(fixture.files.read().is_ok());
}

#[test]
fn what_is_open_to_others_or_too_large_is_refused_with_a_sentence() {
    let fixture = Fixture::new();
    let set = |path: &Path, mode: u32| std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
    for sheet in SHEETS {
        let path = fixture.files.path(sheet);
        for mode in [0o644, 0o660, 0o602] {
            set(&path, mode);
            let error = fixture.files.read().unwrap_err().to_string();
            assert!(error.contains("is open to others") && error.contains("chmod 600"), "{error}");
        }
        set(&path, 0o600);
    }
    set(&fixture.files.dir, 0o750);
    let error = fixture.files.read().unwrap_err().to_string();
    assert!(error.contains("is open to others") && error.contains("chmod 700"), "{error}");
    set(&fixture.files.dir, 0o700);
    let max = Sheet::Floors.bytes_max();
    fixture.restore(Sheet::Floors, &vec![0; usize::try_from(max).unwrap() + 1]);
    assert!(matches!(fixture.files.read(), Err(SiteFilesError::TooLarge { .. })));
}

#[test]
fn the_time_of_the_site_is_kept_and_never_falls_and_nothing_else_changes_with_it() {
    let fixture = Fixture::new();
    fixture.revoke(7, 6_000);
    let before = fixture.copy();
    for (told, kept) in [(9_000, 9_000), (8_000, 9_000), (0, 9_000)] {
        fixture.files.keep_time(SiteTime(told)).unwrap();
        let read = fixture.files.read().unwrap();
        assert_eq!((read.time, read.view.revocations().len()), (SiteTime(kept), 1));
    }
    let after = fixture.copy();
    let changed: Vec<&str> =
        after.iter().filter(|(name, bytes)| before[*name] != **bytes).map(|(name, _)| *name).collect();
    assert_eq!(changed, ["floors"]);
    // What is learned later, without a time, does not take it back.
    fixture.revoke(8, 0);
    assert_eq!(fixture.files.read().unwrap().time, SiteTime(9_000));
}

#[test]
fn only_the_node_with_which_a_site_begins_has_shards_to_make_and_forgets_them_once() {
    assert_eq!(Fixture::new().files.first().unwrap(), None, "it joined");
    let dir = tempfile::tempdir().unwrap();
    let files = SiteFiles::of(&NodeDir::of(dir.path()));
    let founded = hall(2).unwrap();
    let kept = Kept { view: founded.view, chain: founded.chain, time: SiteTime(0), hints: Vec::new() };
    let operator = (&OperatorSecret::from_seed(&[OPERATOR; 32]), "first".parse().unwrap());
    let genesis = Genesis::from_bytes([2; 16]);
    let first = FirstShards::of("hall".parse().unwrap(), genesis, operator).unwrap();
    files.create(&kept, Some(&first)).unwrap();
    assert_eq!(files.first().unwrap(), Some(first));
    let path = files.path(Sheet::First);
    let whole = std::fs::read(&path).unwrap();
    std::fs::write(&path, &whole[..whole.len() - 1]).unwrap();
    assert!(files.first().is_err(), "a part of it makes no shard");
    std::fs::write(&path, whole).unwrap();
    files.forget_first().unwrap();
    assert_eq!(files.first().unwrap(), None);
    assert!(files.read().is_ok(), "the site is there without it");
}
