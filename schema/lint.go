package schema

func (c *compiler) warn(owner interface{ node() *Node }, pos Position, token, code, message, hint string) {
	c.warnings = append(c.warnings, Warning{Pos: pos, Token: token, Code: code, Message: message, Hint: hint})
}

func (c *compiler) lint() {}
