//! Multi-version records over a region's snapshot.
