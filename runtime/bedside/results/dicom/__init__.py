"""Results as DICOM: what any viewer and any PACS takes, referring to the study that it belongs to.

    codes           coded concepts, standard and private
    study           what is copied of the source, and what refers to it
    identity        kinds of objects, their UIDs and numbers
    header          the modules that all objects share; `quiet` keeps pydicom from telling of values
    findings        what a report says; `trees` makes it a TID 1500 tree, with highdicom, and `document` the SR
    severity        what an X-ray's report says; `volumes` a CT's; `refusal` that of a study without a result
    capture         secondary captures with the notice burnt in
    activation      an X-ray's parametric map
    placement       where stored pixels are, in the patient
    segments        which segments a CT has; `frames` keeps their pixels, `groups` encodes what is said of each frame
    segmentation    SEG and label map
    folder          the files: whole or not at all, the report last
    xrays, scans    from a result to its objects

The profile is IHE Radiology, AI Results (AIR; supplement, trial implementation), content in RAD TF-3, 6.5.3. Writing
reports needs highdicom, of the extra ``dicom``; without it `require_highdicom` says so. Not for clinical use.
"""
