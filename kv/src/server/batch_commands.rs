//! The BatchCommands stream: many unary requests on one stream.
