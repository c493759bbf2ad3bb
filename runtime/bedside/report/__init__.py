"""One page of what was found in a CT, and the words that it shares with the command line. No I/O.

page        the whole page, from an `bedside.opacification.OpacificationResult`
montage     slices with what was found drawn over them
curve       areas along the body
palette     colours that the colour-blind can tell apart
lettering   text that fits
wording     lines of text
"""
