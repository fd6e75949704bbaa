"""What commands say of the data sets that they take."""

LAYOUTS = (
    "LMDB, a folder with labels.txt or gt.txt (or the file), pairs x.png and x.gt.txt, or docTR's "
    "labels.json beside images/"
)
