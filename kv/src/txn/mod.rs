//! Transactional commands.
