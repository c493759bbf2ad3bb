"""NIfTI: CT in Hounsfield units and label maps are read, label and probability maps are written.

    header      both versions parsed; version 1 built
    geometry    from the header's two transforms to the voxels' place in the patient, or a refusal
    layout      the order of the axes in a file, and the canonical one of `bedside.scan`
    content     the bytes of a file, plain or unpacked
    voxels      slices of a file, plain or gzipped, without holding the volume
    reading     `read_nifti`, `read_labels`
    writing     `NiftiWriter`; checksum joins the CRCs of its slices

The format: https://nifti.nimh.nih.gov/nifti-1 (nifti1.h) and nifti-2 (nifti2.h). NIfTI's patient axes are RAS
(x to the right, y to the front); bedside's are DICOM's, LPS. Nothing read here reaches a message but numbers of
the header: no description, no name of a file.
"""
