//! Admission by certificates: the talk of two ends, whole meshes, and what a stranger hears.

mod doors;
mod hall;
mod meshes;
mod pipe;
mod probe;
mod talks;
