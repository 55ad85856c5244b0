"""How clients reach us: thin surfaces that parse, call one service method, convert and encode."""
