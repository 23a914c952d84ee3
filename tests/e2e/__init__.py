"""Black-box tests: the real `coatcheck serve`, real clients, a real upstream, a network apart."""
