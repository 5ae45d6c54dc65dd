//! A code of an invitation as a picture that a camera reads, on a terminal.

use qrcode::QrCode;
use qrcode::render::unicode::Dense1x2;

/// The lines of the picture; none if the code does not fit into one. Dark and light are as terminals have them, with
/// light letters on a dark ground. Capital letters take less room, and the code is the same.
pub(super) fn lines(code: &str) -> Vec<String> {
    let Ok(picture) = QrCode::new(code.to_ascii_uppercase()) else { return Vec::new() };
    let drawn = picture.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build();
    drawn.lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_code_fits_on_a_terminal_of_eighty_columns() {
        let longest = format!("skep1{}", "q".repeat(skep_protocol::limits::INVITATION_CODE_CHARS_MAX - 5));
        let lines = lines(&longest);
        assert!(!lines.is_empty());
        assert!(lines.iter().all(|line| line.chars().count() <= 80), "{}", lines[0].chars().count());
        assert!(super::lines(&"q".repeat(9_000)).is_empty());
    }
}
